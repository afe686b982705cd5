"""Many games at once, in this process; one process per game would be 3 to 6 times slower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from pipeline.config import EnvironmentSection
from pipeline.environments.nethack import Episode, NetHackGame, StateMismatch


@dataclass(frozen=True)
class Step:
    """The result of one step of n games.

    | Field | Shape | Description |
    |---|---|---|
    | observation | (n, …) each, as in :class:`NetHackGame` | after the step; where a game ended, of the next game |
    | reward | (n,) float32 | shaped, not normalised |
    | terminated | (n,) bool | the hero died or the task is over: nothing follows |
    | truncated | (n,) bool | the step cap was reached: the value of what would follow is bootstrapped |
    | final_observation | like observation, or None | in the rows of games that ended, their last observation |
    | episodes | list | the episodes that ended |
    """

    observation: dict[str, np.ndarray]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: dict[str, np.ndarray] | None
    episodes: list[Episode]


class Games:
    """Games of NetHack, one for each seed, stepped together.

    When a game ends, the next one begins in the same step. Observations are views of a buffer that the next step
    overwrites.
    """

    def __init__(self, config: EnvironmentSection, seeds: Sequence[np.random.SeedSequence]) -> None:
        def make(sequence: np.random.SeedSequence) -> Callable[[], NetHackGame]:
            return lambda: NetHackGame(config, sequence)

        envs = SyncVectorEnv(
            [make(sequence) for sequence in seeds],
            copy=False,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self._envs: VectorEnv[Any, Any, Any] = envs
        self._games: list[NetHackGame] = list(envs.envs)  # type: ignore[arg-type]
        self.num_envs = len(seeds)
        self.num_actions = int(envs.single_action_space.n)  # type: ignore[attr-defined]

    def reset(self) -> dict[str, np.ndarray]:
        """Starts a game in every environment; returns their first observations."""
        observation, _ = self._envs.reset()
        return observation

    def step(self, actions: np.ndarray) -> Step:
        """Plays one action in every game; `actions` (n,) are integers in [0, num_actions)."""
        observation, reward, terminated, truncated, infos = self._envs.step(actions)
        ended = np.flatnonzero(terminated | truncated)
        final: dict[str, np.ndarray] | None = None
        if ended.size:
            final = {key: array.copy() for key, array in observation.items()}
            for index in ended:
                for key in final:
                    final[key][index] = infos["final_obs"][index][key]
        episodes = [episode for index in ended if (episode := self._games[index].last_episode)]
        return Step(observation, reward.astype(np.float32), terminated, truncated, final, episodes)

    def new_map(self) -> np.ndarray:
        """Whether each game's present observation shows squares for the first time, (n,) bool."""
        return np.array([game.new_squares > 0 for game in self._games])

    def state(self) -> list[dict[str, Any]]:
        """The state of every game, as plain numbers."""
        return [game.state() for game in self._games]

    def restore(self, states: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], int]:
        """Replays saved games; returns their observations, and how many could not be replayed and start anew."""
        self._envs.reset()
        observations, anew = [], 0
        for game, state in zip(self._games, states, strict=True):
            try:
                observation = game.restore(state)
            except StateMismatch:
                observation, _ = game.reset()
                anew += 1
            observations.append({key: np.array(value) for key, value in observation.items()})
        return {key: np.stack([each[key] for each in observations]) for key in observations[0]}, anew

    def close(self) -> None:
        self._envs.close()


def game_seeds(config: EnvironmentSection, seed: int) -> list[np.random.SeedSequence]:
    """One seed for each of `num_envs` games."""
    return np.random.SeedSequence(seed).spawn(config.num_envs)


def random_actions(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """An action (n,) for each of n games, uniformly drawn from those that its row of the mask (n, A) offers."""
    return (mask * (1 - random.random(mask.shape))).argmax(1)  # the draws are above 0


def random_episodes(config: EnvironmentSection, episodes: int, seed: int) -> list[Episode]:
    """At least `episodes` episodes of a policy that draws uniformly from what is offered, under the same step cap."""
    games = Games(config.without_paths(), game_seeds(config, seed))
    random = np.random.default_rng(seed)
    # Short episodes finish first, so taking the first ones would favour them. Instead every environment plays the same
    # number of whole episodes.
    quota = np.full(config.num_envs, -(-episodes // config.num_envs))
    played: list[Episode] = []
    observation = games.reset()
    while quota.any():
        step = games.step(random_actions(observation["action_mask"], random))
        observation = step.observation
        ended = np.flatnonzero(step.terminated | step.truncated)
        for index, episode in zip(ended, step.episodes, strict=True):
            if quota[index]:
                quota[index] -= 1
                played.append(episode)
    games.close()
    return played
