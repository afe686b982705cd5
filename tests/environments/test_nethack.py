"""Games: seeded, truncated, scored and resumable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.environments.nethack import NetHackGame, StateMismatch, check_environment
from pipeline.environments.vector import Games, random_scores
from tests.conftest import small_config

SEARCH = 22  # an action that lets a turn pass


def play(game: NetHackGame, actions: list[int]) -> list[tuple[Any, ...]]:
    return [game.step(action) for action in actions]


def random_actions(count: int, seed: int = 0) -> list[int]:
    return [int(action) for action in np.random.default_rng(seed).integers(0, 23, count)]


def test_same_seed_plays_the_same_games() -> None:
    config = small_config().environment
    one, other = NetHackGame(config, 5), NetHackGame(config, 5)
    for _ in range(2):
        first, second = one.reset()[0], other.reset()[0]
        assert (first["glyphs"] == second["glyphs"]).all()
        for a, b in zip(play(one, random_actions(30)), play(other, random_actions(30)), strict=True):
            assert (a[0]["glyphs"] == b[0]["glyphs"]).all() and a[1] == b[1]


def test_games_of_one_sequence_differ() -> None:
    game = NetHackGame(small_config().environment, 5)
    first = game.reset()[0]["glyphs"].copy()
    assert not (game.reset()[0]["glyphs"] == first).all()


def test_step_cap_truncates_and_does_not_terminate() -> None:
    game = NetHackGame(small_config(environment__max_episode_steps=10).environment, 1)
    game.reset()
    *_, (_, _, terminated, truncated, _) = play(game, [SEARCH] * 10)
    assert truncated and not terminated
    assert game.last_episode is not None and game.last_episode.steps == 10 and not game.last_episode.died


def test_step_cap_above_nles_own_limit_truncates_too() -> None:
    game = NetHackGame(small_config(environment__max_episode_steps=6000).environment, 1)
    assert game.unwrapped._max_episode_steps == 6001  # type: ignore[attr-defined]


def test_score_survives_death() -> None:
    """After a death the observation is all zeros; the score is the one before."""
    config = small_config(environment__max_episode_steps=3000, environment__num_envs=8).environment
    games, random = Games(config, 3), np.random.default_rng(3)
    games.reset()
    deaths = []
    while len(deaths) < 6:
        step = games.step(random.integers(0, games.num_actions, 8))
        deaths += [episode for episode in step.episodes if episode.died]
    assert any(episode.score > 0 for episode in deaths)


def test_restored_game_goes_on_as_the_original() -> None:
    config = small_config(environment__max_episode_steps=200).environment
    original = NetHackGame(config, 7)
    original.reset()
    play(original, random_actions(60))
    state = original.state()
    restored = NetHackGame(config, 99)
    restored.reset()
    restored.restore(state)
    for a, b in zip(play(original, random_actions(60, 1)), play(restored, random_actions(60, 1)), strict=True):
        assert (a[0]["glyphs"] == b[0]["glyphs"]).all() and (a[0]["blstats"] == b[0]["blstats"]).all()
        assert a[1:4] == b[1:4]
    assert (original.reset()[0]["glyphs"] == restored.reset()[0]["glyphs"]).all()


def test_replay_that_goes_another_way_is_recognised() -> None:
    game = NetHackGame(small_config().environment, 7)
    game.reset()
    play(game, random_actions(20))
    state = game.state()
    state["blstats"][9] += 1
    with pytest.raises(StateMismatch):
        game.restore(state)


def test_shaping_coefficients_make_the_reward() -> None:
    """All coefficients zero: no reward at all; only exploration: never negative, and something in the first steps."""
    rewards = {}
    for exploration in (0.0, 1.0):
        config = small_config(
            **{f"environment__shaping__{name}": 0.0 for name in ("task", "descent", "stairs")},
            environment__shaping__exploration=exploration,
            environment__max_episode_steps=200,
        ).environment
        game = NetHackGame(config, 2)
        game.reset()
        rewards[exploration] = [step[1] for step in play(game, random_actions(150))]
    assert not any(rewards[0.0])
    assert min(rewards[1.0]) >= 0 and sum(rewards[1.0]) > 0


def test_final_observation_is_of_the_game_that_ended() -> None:
    config = small_config(environment__max_episode_steps=5).environment
    games = Games(config, 1)
    games.reset()
    for _ in range(4):
        games.step(np.full(4, SEARCH))
    step = games.step(np.full(4, SEARCH))
    assert step.truncated.all() and step.final_observation is not None
    assert (step.final_observation["blstats"][:, 20] > step.observation["blstats"][:, 20]).all()  # game time


def test_random_baseline_plays_whole_episodes_under_the_cap() -> None:
    scores = random_scores(small_config().environment, episodes=6, seed=1)
    assert len(scores) == 8 and (scores >= 0).all()  # two rounds of four games


def test_unknown_environment_names_the_nearest() -> None:
    assert check_environment("NetHackScore-v0") is None
    assert "nearest: NetHackScout-v0" in str(check_environment("NetHackScot-v0"))
