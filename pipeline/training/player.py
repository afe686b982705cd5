"""A trained policy that plays: observations of a game in, action logits out. It is logged as a model in MLflow.

player = mlflow.pytorch.load_model("models:/m-…")
game = player.new_game(seed=1)
observation, _ = game.reset()
done = False
while not done:
    observation, _, terminated, truncated, _ = game.step(player.act(observation))
    done = terminated or truncated
print(game.last_episode)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import EnvironmentSection, ExperimentConfig
from pipeline.environments.entity_graph import GLYPHS, KINDS, PATHS, STATS, encode
from pipeline.environments.nethack import NetHackGame, count_actions
from pipeline.policy.build import build_policy
from pipeline.policy.interface import ObservationSpec, Policy, PolicyOutput, Routing
from pipeline.policy.mixture import MixturePolicy
from pipeline.training.checkpoint import read_checkpoint
from pipeline.training.phases import phase_at, temperature_at
from pipeline.training.transfer import fit_inputs

OBSERVED = ("glyphs", "blstats", "underfoot", "visited", "paths", "action_mask")
"""The arrays of a game's observation that a player reads."""


def observation_spec(config: EnvironmentSection) -> ObservationSpec:
    """Sizes of a policy's input in this environment."""
    return ObservationSpec(
        glyphs=GLYPHS,
        kinds=len(KINDS),
        crop=config.crop_size,
        stats=STATS + (PATHS if config.paths == "stats" else 0),
        actions=count_actions(config),
        paths=PATHS if config.paths == "graph" else 0,
    )


class Player(nn.Module):
    """A policy with its environment and its routing, on the CPU.

    It plays without dropout, with the routing and the temperature at the end of its training.

    Args:
        policy: the trained policy.
        config: the configuration that it was trained with.
        episode: number of episodes that were finished when its training ended.
    """

    def __init__(self, policy: Policy, config: ExperimentConfig, episode: int) -> None:
        super().__init__()
        phases = config.phases
        self.policy = policy.eval()
        self.environment = config.played
        self.sparse = phases.of(phase_at(episode, phases)).routing == "sparsemax"
        self.temperature = temperature_at(episode, phases)

    @classmethod
    def from_state(cls, state: dict[str, Any], config: ExperimentConfig) -> Player:
        """The player in a checkpoint's content; `config` is the configuration that it was trained with."""
        policy = build_policy(observation_spec(config.played), config.policy)
        policy.load_state_dict(fit_inputs(state["policy"], policy.state_dict()))
        return cls(policy, config, state["finished"])

    @classmethod
    def from_checkpoint(cls, path: Path, config: ExperimentConfig) -> Player:
        """The player in a checkpoint's file; `config` is the configuration that it was trained with.

        Raises:
            BadCheckpoint: the file is damaged or foreign.
        """
        return cls.from_state(read_checkpoint(path), config)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts."""
        return self.policy.expert_names

    def forward(self, observation: Mapping[str, np.ndarray | Tensor]) -> Tensor:
        """Action logits (B, A) of B moments.

        | Key | Shape | Description |
        |---|---|---|
        | glyphs | (B, 21, 79) int16 | the map |
        | blstats | (B, 27) int64 | statistics of the bottom line |
        | underfoot | (B,) int16 | glyph of what the hero stands on |
        | visited | (B, 21, 79) int8 | 1: the hero has been on the square |
        | paths | (B, 3, 2) int8 | first steps of the shortest paths to a frontier, an object, and stairs down |
        | action_mask | (B, A) int8 | 1: the action is offered |
        """
        return self.look(observation).logits

    @torch.no_grad()
    def look(self, observation: Mapping[str, np.ndarray | Tensor]) -> PolicyOutput:
        """The policy's whole output for B moments."""
        obs = self.encoded(observation)
        count = len(obs["stats"])
        routing = Routing(torch.full((count,), self.sparse), torch.full((count,), self.temperature))
        noise = self.policy.draw_noise(count, torch.default_generator, torch.device("cpu"))
        noise.pop("dropout", None)
        return self.policy(obs, routing, noise)  # type: ignore[no-any-return]

    def encoded(self, observation: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
        """The policy's input for B moments, as `entity_graph.encode` gives it."""
        raw = {key: np.asarray(observation[key]) for key in OBSERVED}
        return {key: torch.from_numpy(array) for key, array in encode(raw, self.environment).items()}

    def act(self, observation: Mapping[str, np.ndarray | Tensor]) -> int:
        """An action for one moment (without batch dimension), drawn from the policy as in training."""
        logits = self(self.batched([observation]))
        return int(torch.multinomial(logits.softmax(-1), 1))

    @staticmethod
    def batched(observations: list[Any]) -> dict[str, np.ndarray]:
        """Single moments stacked into a batch."""
        return {key: np.stack([np.asarray(each[key]) for each in observations]) for key in OBSERVED}

    @torch.no_grad()
    def attention(self, observation: Mapping[str, np.ndarray | Tensor]) -> tuple[np.ndarray, np.ndarray] | None:
        """Attention of the hero's node in B moments, and positions of the nodes; None if there is no graph encoder.

        The attention (B, N) is that of the last layer, averaged over heads. The positions (B, N, 2) are columns and
        rows from the hero.
        """
        if not isinstance(self.policy, MixturePolicy) or self.policy.gat is None:
            return None
        obs = self.encoded(observation)
        layers, _ = self.policy.gat.inspect(obs)
        seen = layers[-1][:, :, 0].mean(1) * (obs["node_kind"] > 0)
        return seen.numpy(), obs["node_position"].numpy()

    def new_game(self, seed: int, also: tuple[str, ...] = ()) -> NetHackGame:
        """A game of the environment that the policy was trained on; `also`: further arrays of NLE to observe."""
        return NetHackGame(self.environment, seed, also)
