"""Stable-Baselines3 on the same games, as the benchmarks use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.sb3 import GamesVecEnv, build, dummy_games
from tests.conftest import small_config


@pytest.mark.parametrize("graph", [False, True])
def test_both_vector_environments_play_the_same_games(graph: bool) -> None:
    config = small_config(environment__max_episode_steps=12).environment
    environments: list[VecEnv] = [GamesVecEnv(config, 3, graph), dummy_games(config, 3, graph)]
    first = [games.reset() for games in environments]
    assert environments[0].observation_space == environments[1].observation_space
    assert isinstance(first[0], dict) == isinstance(first[1], dict) == graph
    for key in first[0] if graph else (slice(None),):
        assert (np.asarray(first[0][key]) == np.asarray(first[1][key])).all()
    for games in environments:
        for _ in range(12):
            observation, reward, done, infos = games.step(np.full(4, 22))
        assert done.all() and reward.shape == (4,)
        assert all(info["TimeLimit.truncated"] for info in infos)  # a cut is bootstrapped, a death is not
        last = infos[0]["terminal_observation"]
        shown = observation if graph else {"all": observation}
        assert all(np.shape(last[key] if graph else last) == shown[key][0].shape for key in shown)
        games.close()


@pytest.mark.parametrize("v3", [False, True])
def test_sb3_trains(v3: bool) -> None:
    config = small_config()
    games = GamesVecEnv(config.environment, 1, graph=v3)
    model = build(config, games, v3)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(4 * 64)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True)]
    assert all(moved) and games.episodes
    assert all(steps <= 4 * 64 and episode.score >= 0 for steps, episode in games.episodes)
