"""Games: seeded, truncated, scored and resumable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nle import nethack

from pipeline.environments.level import STAIRS_DOWN, STONE, Level
from pipeline.environments.nethack import (
    NetHackGame,
    StateMismatch,
    available_environments,
    check_character,
    check_environment,
)
from pipeline.environments.vector import Games, game_seeds, random_episodes
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
    games, random = Games(config, game_seeds(config, 3)), np.random.default_rng(3)
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
    """With all coefficients 0 there is no reward. With exploration alone it is never negative, and soon positive."""
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


def explored(squares: int, **changes: Any) -> dict[str, np.ndarray]:
    """An observation of a level of which `squares` squares are known, with the hero at (5, 5)."""
    glyphs = np.full((21, 79), 2359, dtype=np.int16)  # unknown
    glyphs.reshape(-1)[:squares] = 2378  # floor
    blstats = np.zeros(27, dtype=np.int64)
    blstats[[0, 1, 12, 24]] = 5, 5, changes.get("depth", 1), changes.get("depth", 1)
    if "stairs" in changes:
        glyphs[changes["stairs"][1], changes["stairs"][0]] = 2359 + 24
    return {"glyphs": glyphs, "blstats": blstats}


def test_exploration_counts_new_squares_only() -> None:
    config = small_config(environment__shaping__stairs=0.0, environment__shaping__descent=0.0).environment
    game = NetHackGame(config, 1)
    game.reset()
    game._levels = {}
    assert game._explore(explored(50)) == 0.0  # arriving on a level is not rewarded
    assert game._explore(explored(60)) == pytest.approx(0.1 * np.log(11))
    assert game._explore(explored(60)) == 0.0


def test_descent_pays_once_for_each_new_depth() -> None:
    config = small_config(environment__shaping__exploration=0.0, environment__shaping__stairs=0.0).environment
    game = NetHackGame(config, 1)
    game.reset()
    assert [game._explore(explored(5, depth=depth)) for depth in (1, 3, 2, 3, 4)] == [0.0, 6.0, 0.0, 0.0, 3.0]


def test_stairs_pay_for_getting_nearer_than_ever() -> None:
    config = small_config(environment__shaping__exploration=0.0, environment__shaping__stairs=1.0).environment
    game = NetHackGame(config, 1)
    game.reset()
    distances = [8, 6, 7, 6, 5]
    paid = [game._explore(explored(5, stairs=(5 + distance, 5))) for distance in distances]
    assert paid == [0.0, 2.0, 0.0, 0.0, 1.0]


def test_stairs_are_remembered_under_the_hero_monsters_and_objects() -> None:
    stairs, newt, monk = 2359 + 24, nethack.GLYPH_MON_OFF + 322, nethack.GLYPH_MON_OFF + 327
    level = Level()
    glyphs = explored(1659)["glyphs"]
    for standing in (stairs, newt, monk, nethack.GLYPH_OBJ_OFF + 10, nethack.GLYPH_BODY_OFF + 5, STONE):
        glyphs[7, 9] = standing
        level.look(glyphs)
        assert level.features[7, 9] == stairs
    assert [level.nearer_to_stairs(x, 7) for x in (12, 10, 9)] == [0, 2, 1]  # the last step, too, is a step nearer


def test_a_level_sees_as_if_it_went_through_the_whole_screen_each_time() -> None:
    random, level = np.random.default_rng(0), Level()
    some = [STONE, 2359 + 12, 2359 + 19, 2359 + 23, 2359 + 24, nethack.GLYPH_MON_OFF + 322, nethack.GLYPH_OBJ_OFF + 10]
    glyphs = np.full((21, 79), STONE, dtype=np.int16)
    seen, features = np.zeros((21, 79), dtype=bool), np.full((21, 79), STONE, dtype=np.int16)
    for _ in range(300):
        where = random.integers(0, 21 * 79, size=random.integers(0, 4))
        glyphs.ravel()[where] = random.choice(some, size=len(where))
        shown = glyphs != STONE
        assert level.look(glyphs) == np.count_nonzero(shown & ~seen)
        seen |= shown
        built = shown & np.array([[nethack.glyph_is_cmap(int(glyph)) for glyph in row] for row in glyphs])
        features[built] = glyphs[built]
        assert (level.seen == seen).all() and (level.features == features).all()
        rows, columns = np.nonzero(np.isin(features, STAIRS_DOWN))
        level.nearest_stairs = 100
        nearest = np.maximum(abs(rows - 7), abs(columns - 9)).min() if len(rows) else 100
        assert level.nearer_to_stairs(9, 7) == 100 - nearest


def test_a_long_move_visits_all_of_its_squares() -> None:
    level = Level()
    for x, y in ((10, 5), (14, 5), (12, 7), (30, 8)):
        level.walk(x, y)
    line, diagonal, jump = [(5, x) for x in range(10, 15)], [(6, 13), (7, 12)], [(8, 30)]  # no line leads to the last
    assert {tuple(square) for square in np.argwhere(level.visited).tolist()} == {*line, *diagonal, *jump}


def test_underfoot_is_what_the_hero_walked_onto() -> None:
    game = NetHackGame(small_config(environment__max_episode_steps=300).environment, 4)
    before, _ = game.reset()
    checked = 0
    assert before["underfoot"] == STONE
    for action in random_actions(200):
        before = {key: np.array(value) for key, value in before.items()}
        after, _, terminated, *_ = game.step(action)
        if terminated:
            break
        (x0, y0), (x, y) = before["blstats"][:2], after["blstats"][:2]
        onto = int(before["glyphs"][y, x])
        if max(abs(x - x0), abs(y - y0)) == 1 and nethack.glyph_is_cmap(onto) and onto != STONE:
            assert after["underfoot"] == onto and after["visited"][y, x]
            checked += 1
        before = after
    assert checked > 10


def test_final_observation_is_of_the_game_that_ended() -> None:
    config = small_config(environment__max_episode_steps=5).environment
    games = Games(config, game_seeds(config, 1))
    games.reset()
    for _ in range(4):
        games.step(np.full(4, SEARCH))
    step = games.step(np.full(4, SEARCH))
    assert step.truncated.all() and step.final_observation is not None
    assert (step.final_observation["blstats"][:, 20] > step.observation["blstats"][:, 20]).all()  # game time


def test_random_baseline_plays_whole_episodes_under_the_cap() -> None:
    episodes = random_episodes(small_config().environment, episodes=6, seed=1)
    assert len(episodes) == 8  # two rounds of four games
    assert all(episode.score >= 0 and (episode.steps == 40 or episode.died) for episode in episodes)


def test_every_environment_on_offer_plays_and_is_repeatable() -> None:
    for name in available_environments():
        game = NetHackGame(small_config(environment__id=name).environment, 1)
        game.reset()
        game.step(0)


@pytest.mark.parametrize(
    ("character", "known"),
    [("mon-hum-neu-mal", True), ("val", True), ("@", True), ("mon-foo", False), ("monkey", False), ("", False)],
)
def test_characters(character: str, known: bool) -> None:
    assert (check_character(character) is None) == known


def test_unknown_environment_names_the_nearest() -> None:
    assert check_environment("NetHackScore-v0") is None
    assert "nearest: NetHackScout-v0" in str(check_environment("NetHackScot-v0"))
