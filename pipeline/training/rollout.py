"""Collecting transitions: n games, T steps, everything that the update needs to recompute the policy that acted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ExperimentConfig
from pipeline.environments.entity_graph import encode
from pipeline.environments.nethack import Episode
from pipeline.environments.vector import Games
from pipeline.policy.interface import Routing
from pipeline.policy.mixture import MixturePolicy
from pipeline.training.advantage import generalised_advantage
from pipeline.training.numerics import RewardNormaliser
from pipeline.training.phases import phase_at, phase_settings, temperature_at


@dataclass
class Rollout:
    """T·n transitions, flattened in (time, game) order.

    | Field | Shape | Description |
    |---|---|---|
    | obs | dict of (T·n, …) | encoded observations |
    | noise | dict of (T·n, …) | the random draws inside the policy |
    | routing | (T·n,) each | softmax or sparsemax, and temperature, of each sample |
    | action, log_prob, value | (T·n,) | when acting |
    | advantage, returns | (T·n,) | GAE, and GAE + value |
    | alpha | (T·n, E) | when acting |
    | phase | (T·n,) int | of the game that each sample belongs to |
    """

    obs: dict[str, Tensor]
    noise: dict[str, Tensor]
    routing: Routing
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    returns: Tensor
    alpha: Tensor
    router_logits: Tensor
    phase: np.ndarray
    episodes: list[Episode]
    nonfinite_rewards: int


class Collector:
    """Plays `num_envs` games on and on; `finished` counts the episodes and so drives the phases."""

    def __init__(
        self,
        games: Games,
        policy: MixturePolicy,
        config: ExperimentConfig,
        normaliser: RewardNormaliser,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.games, self.policy, self.config = games, policy, config
        self.normaliser, self.generator, self.device = normaliser, generator, device
        self.finished = 0
        self._observation = games.reset()
        n = games.num_envs
        self._phase = np.zeros(n, dtype=np.int64)
        self._temperature = np.ones(n, dtype=np.float32)
        self._sparse = np.zeros(n, dtype=bool)
        for index in range(n):
            self._begin_game(index)

    def _begin_game(self, index: int) -> None:
        """A game keeps the phase in which it begins: phases switch at episode boundaries."""
        phases = self.config.phases
        phase = phase_at(self.finished, phases)
        self._phase[index] = phase
        self._temperature[index] = temperature_at(self.finished, phases)
        self._sparse[index] = phase_settings(phase, phases).routing == "sparsemax"

    def _tensors(self, observation: dict[str, np.ndarray]) -> dict[str, Tensor]:
        arrays = encode(observation, self.config.environment)
        return {key: torch.from_numpy(array).to(self.device) for key, array in arrays.items()}

    def routing(self) -> Routing:
        """Of the games as they stand now, (n,)."""
        return Routing(
            sparse=torch.from_numpy(self._sparse.copy()).to(self.device),
            temperature=torch.from_numpy(self._temperature.copy()).to(self.device),
        )

    @torch.no_grad()
    def collect(self) -> Rollout:
        """T = `training.rollout_steps` steps of every game."""
        training, n = self.config.training, self.games.num_envs
        steps: list[dict[str, Any]] = []
        episodes: list[Episode] = []
        nonfinite_rewards = 0
        obs = self._tensors(self._observation)
        for _ in range(training.rollout_steps):
            routing = self.routing()
            noise = self.policy.draw_noise(n, self.generator, self.device)
            output = self.policy(obs, routing, noise)
            log_probs = output.logits.log_softmax(-1)
            action = torch.multinomial(log_probs.exp().cpu(), 1, generator=self.generator).squeeze(-1)
            played = {
                "obs": obs,
                "noise": output.record,
                "sparse": routing.sparse,
                "temperature": routing.temperature,
                "phase": self._phase.copy(),
                "action": action.to(self.device),
                "log_prob": log_probs[torch.arange(n), action.to(self.device)],
                "value": torch.nan_to_num(output.value),
                "alpha": output.alpha,
                "router_logits": output.router_logits,
            }
            step = self.games.step(action.numpy())
            finite = np.isfinite(step.reward)
            nonfinite_rewards += int((~finite).sum())
            done = step.terminated | step.truncated
            played["reward"] = torch.from_numpy(self.normaliser(np.where(finite, step.reward, 0.0), done))
            played["terminated"] = torch.from_numpy(step.terminated.copy())
            played["truncated"] = torch.from_numpy(step.truncated & ~step.terminated)
            played["final_value"] = torch.zeros(n)
            cut = np.flatnonzero(step.truncated & ~step.terminated)
            if cut.size and step.final_observation is not None:
                last = self._tensors({key: array[cut] for key, array in step.final_observation.items()})
                played["final_value"][cut] = torch.nan_to_num(self.policy.value(last)).cpu()
            steps.append(played)
            for index in np.flatnonzero(done):
                self.finished += 1
                self._begin_game(int(index))
            episodes += step.episodes
            self._observation = step.observation
            obs = self._tensors(step.observation)
        return self._assemble(steps, torch.nan_to_num(self.policy.value(obs)), episodes, nonfinite_rewards)

    def _assemble(
        self, steps: list[dict[str, Any]], last_value: Tensor, episodes: list[Episode], nonfinite_rewards: int
    ) -> Rollout:
        training = self.config.training

        def stack(key: str) -> Tensor:
            return torch.stack([step[key] for step in steps]).to(self.device)

        def flat(key: str) -> Tensor:
            return stack(key).flatten(0, 1)

        def flat_each(key: str) -> dict[str, Tensor]:
            return {name: torch.cat([step[key][name] for step in steps]) for name in steps[0][key]}

        value, truncated = stack("value"), stack("truncated")
        following = torch.cat([value[1:], last_value.unsqueeze(0)])
        advantage = generalised_advantage(
            reward=stack("reward"),
            value=value,
            next_value=torch.where(truncated, stack("final_value"), following),
            terminated=stack("terminated"),
            truncated=truncated,
            gamma=training.gamma,
            gae_lambda=training.gae_lambda,
        )
        return Rollout(
            obs=flat_each("obs"),
            noise=flat_each("noise"),
            routing=Routing(sparse=flat("sparse"), temperature=flat("temperature")),
            action=flat("action"),
            log_prob=flat("log_prob"),
            value=value.flatten(),
            advantage=advantage.flatten(),
            returns=(advantage + value).flatten(),
            alpha=flat("alpha"),
            router_logits=flat("router_logits"),
            phase=np.concatenate([step["phase"] for step in steps]),
            episodes=episodes,
            nonfinite_rewards=nonfinite_rewards,
        )

    def resume_at(self, finished: int) -> None:
        """Counts on from so many finished episodes, with new games."""
        self.finished = finished
        for index in range(self.games.num_envs):
            self._begin_game(index)

    def state(self) -> dict[str, Any]:
        return {
            "finished": self.finished,
            "games": self.games.state(),
            "phase": self._phase.tolist(),
            "temperature": self._temperature.tolist(),
            "sparse": self._sparse.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Replays the games to where they were; returns how many had to start anew."""
        self.finished = state["finished"]
        self._observation, anew = self.games.restore(state["games"])
        self._phase = np.array(state["phase"])
        self._temperature = np.array(state["temperature"], dtype=np.float32)
        self._sparse = np.array(state["sparse"])
        return anew
