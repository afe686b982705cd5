"""Collecting transitions: T steps of n games, with all that the update needs to recompute the policy that acted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ExperimentConfig
from pipeline.environments.entity_graph import encode
from pipeline.environments.nethack import Episode
from pipeline.environments.situations import situations
from pipeline.environments.vector import Games
from pipeline.policy.interface import Policy, Routing
from pipeline.policy.traced import Traced
from pipeline.training.phases import phase_at, temperature_at


@dataclass
class Samples:
    """T·n transitions as the update takes them, flattened in (time, game) order.

    | Field | Shape | Description |
    |---|---|---|
    | obs | dict of (T·n, …) | encoded observations |
    | noise | dict of (T·n, …) | the random draws inside the policy |
    | routing | (T·n,) each | softmax or sparsemax, and temperature, of each sample |
    | action | (T·n,) int | the action that was played |
    | log_prob | (T·n,) | its log-probability when the policy acted |
    | advantage, returns | (T·n,) | 0 until `Worker.learn_from` sets them |
    """

    obs: dict[str, Tensor]
    noise: dict[str, Tensor]
    routing: Routing
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, index: Tensor | slice) -> Samples:
        """The samples at `index`."""
        return Samples(
            obs={key: array[index] for key, array in self.obs.items()},
            noise={key: array[index] for key, array in self.noise.items()},
            routing=Routing(self.routing.sparse[index], self.routing.temperature[index]),
            action=self.action[index],
            log_prob=self.log_prob[index],
            advantage=self.advantage[index],
            returns=self.returns[index],
        )


@dataclass
class Played:
    """T steps of n games, without the observations.

    | Field | Shape | Description |
    |---|---|---|
    | reward | (T, n) float32 | shaped, not normalised; 0 where it was not finite |
    | value | (T, n) float32 | critic's estimate before the step |
    | next_value | (T, n) float32 | critic's estimate after the step; at a truncation, of the game that was cut |
    | terminated, truncated | (T, n) bool | how the game ended with the step; never both |
    | alpha, router_logits | (T, n, E) float32 | the router's output when the policy acted |
    | phase | (T, n) int | phase of the game that the sample belongs to |
    | sparse, temperature | (T, n) | the routing of each sample |
    | situations | (T, n, 4) bool | which of `SITUATIONS` the moment is |
    | episodes | list | the episodes that ended |
    | nonfinite_rewards | int | number of rewards that were not finite |
    """

    reward: np.ndarray
    value: np.ndarray
    next_value: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    alpha: np.ndarray
    router_logits: np.ndarray
    phase: np.ndarray
    sparse: np.ndarray
    temperature: np.ndarray
    situations: np.ndarray
    episodes: list[Episode]
    nonfinite_rewards: int

    @staticmethod
    def join(parts: list[Played]) -> Played:
        """The games of all parts side by side."""
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts], axis=1)
            for name, value in vars(parts[0]).items()
            if isinstance(value, np.ndarray)
        }
        return Played(
            **arrays,
            episodes=[episode for part in parts for episode in part.episodes],
            nonfinite_rewards=sum(part.nonfinite_rewards for part in parts),
        )


class Collector:
    """Plays its games, one rollout after another.

    `finished` is the number of finished episodes of the run, which determines the phase.

    Args:
        games: the games.
        policy: the policy that acts.
        config: the attempt's configuration.
        generator: source of all random draws of the policy and of its actions.
        device: where the policy is.
    """

    def __init__(
        self,
        games: Games,
        policy: Policy,
        config: ExperimentConfig,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.games, self.policy, self.config = games, policy, config
        self._environment = config.played
        self._act = Traced(policy)
        self.generator, self.device = generator, device
        self.poisoned_rollouts = 0  # number of coming rollouts in which the first game shows NaN; drills set it
        self._observation = games.reset()
        n = games.num_envs
        self._phase = np.zeros(n, dtype=np.int64)
        self._temperature = np.ones(n, dtype=np.float32)
        self._sparse = np.zeros(n, dtype=bool)
        self.count_from(0)

    def count_from(self, finished: int) -> None:
        """Sets the number of finished episodes, and the phase of the present games accordingly."""
        self.finished = finished
        for index in range(self.games.num_envs):
            self._begin_game(index)

    def _begin_game(self, index: int) -> None:
        """Sets a game's phase, which it keeps until it ends: phases switch at episode boundaries."""
        phases = self.config.phases
        phase = phase_at(self.finished, phases)
        self._phase[index] = phase
        self._temperature[index] = temperature_at(self.finished, phases)
        self._sparse[index] = phases.of(phase).routing == "sparsemax"

    def _tensors(self, observation: dict[str, np.ndarray]) -> dict[str, Tensor]:
        arrays = encode(observation, self._environment)
        if self.poisoned_rollouts:
            arrays["stats"][0] = np.nan
        return {key: torch.from_numpy(array).to(self.device) for key, array in arrays.items()}

    def _routing(self) -> Routing:
        """The present routing of the games, (n,)."""
        return Routing(
            sparse=torch.from_numpy(self._sparse.copy()).to(self.device),
            temperature=torch.from_numpy(self._temperature.copy()).to(self.device),
            any_sparse=bool(self._sparse.any()),
        )

    def collect(self) -> tuple[Samples, Played]:
        """Plays T = `training.rollout_steps` steps of every game; returns them for the update and for the metrics."""
        # Assembled outside of inference mode, whose tensors cannot take part in an update.
        return self._assemble(*self._play())

    @torch.inference_mode()
    def _play(self) -> tuple[list[dict[str, Any]], Tensor, list[Episode]]:
        """Returns the record of each step, the critic's estimate (n,) of what follows, and the episodes that ended.

        Inference mode saves the cost of autograd's records.
        """
        n = self.games.num_envs
        steps: list[dict[str, Any]] = []
        episodes: list[Episode] = []
        obs = self._tensors(self._observation)
        for _ in range(self.config.training.rollout_steps):
            routing = self._routing()
            new_map = self.games.new_map()
            noise = self.policy.draw_noise(n, self.generator, self.device)
            output = self._act(obs, routing, noise)
            log_probs = output.logits.log_softmax(-1)
            chosen = torch.multinomial(log_probs.exp().cpu(), 1, generator=self.generator)
            action = chosen.to(self.device)
            step = self.games.step(chosen.squeeze(-1).numpy())
            truncated = step.truncated & ~step.terminated
            final_value = torch.zeros(n)
            cut = np.flatnonzero(truncated)
            if cut.size and step.final_observation is not None:
                last = self._tensors({key: array[cut] for key, array in step.final_observation.items()})
                final_value[cut] = torch.nan_to_num(self.policy.value(last)).cpu()
            steps.append(
                {
                    "obs": obs,
                    "noise": output.record,
                    "sparse": routing.sparse,
                    "temperature": routing.temperature,
                    "action": action.squeeze(-1),
                    "log_prob": log_probs.gather(-1, action).squeeze(-1),
                    "value": torch.nan_to_num(output.value),
                    "alpha": output.alpha,
                    "router_logits": output.router_logits,
                    "phase": torch.from_numpy(self._phase.copy()),
                    "new_map": torch.from_numpy(new_map),
                    "reward": torch.from_numpy(step.reward),
                    "terminated": torch.from_numpy(step.terminated.copy()),
                    "truncated": torch.from_numpy(truncated),
                    "final_value": final_value,
                }
            )
            for index in np.flatnonzero(step.terminated | step.truncated):
                self.finished += 1
                self._begin_game(int(index))
            episodes += step.episodes
            self._observation = step.observation
            obs = self._tensors(step.observation)
        self.poisoned_rollouts = max(0, self.poisoned_rollouts - 1)
        return steps, torch.nan_to_num(self.policy.value(obs)), episodes

    def _assemble(
        self, steps: list[dict[str, Any]], last_value: Tensor, episodes: list[Episode]
    ) -> tuple[Samples, Played]:
        stacked = {key: torch.stack([step[key] for step in steps]) for key in steps[0] if key not in ("obs", "noise")}
        array = {key: tensor.cpu().numpy() for key, tensor in stacked.items()}

        def flat(key: str) -> dict[str, Tensor]:
            return {name: torch.cat([step[key][name] for step in steps]) for name in steps[0][key]}

        finite = np.isfinite(array["reward"])
        observed = flat("obs")
        met = situations({key: tensor.cpu().numpy() for key, tensor in observed.items()}, array["new_map"].ravel())
        following = np.concatenate([array["value"][1:], last_value.cpu().numpy()[None]])
        samples = Samples(
            obs=observed,
            noise=flat("noise"),
            routing=Routing(stacked["sparse"].flatten(), stacked["temperature"].flatten()),
            action=stacked["action"].flatten(),
            log_prob=stacked["log_prob"].flatten(),
            advantage=torch.zeros(len(steps) * self.games.num_envs, device=self.device),
            returns=torch.zeros(len(steps) * self.games.num_envs, device=self.device),
        )
        played = Played(
            reward=np.where(finite, array["reward"], np.float32(0)),
            next_value=np.where(array["truncated"], array["final_value"], following),
            situations=met.reshape(*array["new_map"].shape, -1),
            episodes=episodes,
            nonfinite_rewards=int((~finite).sum()),
            **{
                name: array[name]
                for name in (
                    "value", "terminated", "truncated", "alpha", "router_logits", "phase", "sparse", "temperature",
                )
            },
        )  # fmt: skip
        return samples, played

    def state(self) -> dict[str, Any]:
        """The games and their phases, as plain numbers."""
        return {
            "games": self.games.state(),
            "phase": self._phase.tolist(),
            "temperature": self._temperature.tolist(),
            "sparse": self._sparse.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Replays the games of a state; returns how many could not be replayed and start anew."""
        self._observation, anew = self.games.restore(state["games"])
        self._phase = np.array(state["phase"])
        self._temperature = np.array(state["temperature"], dtype=np.float32)
        self._sparse = np.array(state["sparse"])
        return anew
