"""Which actions are offered: on drawn maps, and in real games whether what is refused does nothing indeed."""

from __future__ import annotations

import numpy as np
import pytest
from nle import nethack

from pipeline.environments.actions import Actions
from pipeline.environments.level import Level
from pipeline.environments.nethack import NetHackGame
from pipeline.environments.vector import random_actions
from tests.conftest import small_config
from tests.environments.test_paths import CMAP, explored

KEYS = "\rklHu<>.s"
ACTIONS = Actions([ord(key) for key in KEYS])


def refused(level: Level, at: tuple[int, int]) -> str:
    """The keys that are not offered."""
    return "".join(key for key, offered in zip(KEYS, ACTIONS.offered(level, *at), strict=True) if not offered)


def standing_on(symbol: int, *rows: str) -> tuple[Level, tuple[int, int]]:
    """A drawn level on which the hero stands on a map symbol that was seen before."""
    level, at = explored(*(rows or ("...", ".@.", "...")))
    shown = level.screen.copy()
    before = shown.copy()
    before[at[1], at[0]] = CMAP + symbol
    level.look(before)
    level.look(shown)
    return level, at


@pytest.mark.parametrize(
    ("symbol", "keys"),
    [
        (19, "\r<>"),  # floor
        (21, "\r<>"),  # corridor
        (12, "\r<>"),  # doorway
        (23, "\r>"),  # stairs up
        (25, "\r>"),  # ladder up
        (24, "\r<"),  # stairs down
        (26, "\r<"),  # ladder down
        (27, "\r<>"),  # altar
        (42, "\r"),  # trap: a hole is entered with >
        (53, "\r"),  # pit: < climbs out of it
        (64, "\r"),
    ],
)
def test_stairs_are_offered_where_they_may_be_taken(symbol: int, keys: str) -> None:
    assert refused(*standing_on(symbol)) == keys


def test_of_an_unknown_square_nothing_is_certain() -> None:
    level, at = explored("...", ".@.", "...")
    assert refused(level, at) == "\r"


def test_steps_and_runs_into_walls_are_refused() -> None:
    level, at = standing_on(19, "---", "|@.", "|..")
    assert refused(level, at) == "\rkHu<>"


@pytest.mark.parametrize(("symbol", "keys"), [(19, "\rkHu<>"), (53, "\r"), (0, "\r")])
def test_a_step_into_a_wall_may_help_out_of_a_trap(symbol: int, keys: str) -> None:
    assert refused(*standing_on(symbol, "---", "|@.", "|..")) == keys


def test_what_is_in_a_wall_can_be_attacked() -> None:
    """A ghost in a wall, or the inside of a monster that has swallowed the hero, hides the wall."""
    level, at = standing_on(19, "---", "|@.", "|..")
    for glyph in (nethack.GLYPH_MON_OFF + 292, nethack.GLYPH_SWALLOW_OFF + 1):
        screen = level.screen.copy()
        screen[at[1] - 1, at[0]] = glyph
        level.look(screen)
        assert refused(level, at) == "\rHu<>"


@pytest.mark.parametrize("at", [(0, 0), (78, 20)])
def test_at_the_edge_of_the_map_steps_are_offered(at: tuple[int, int]) -> None:
    assert refused(Level(), at) == "\r"


def test_an_environment_may_have_none_of_these_keys() -> None:
    assert Actions([ord("s"), ord(".")]).offered(Level(), 3, 3).tolist() == [1, 1]


def test_what_is_refused_does_nothing_in_a_real_game() -> None:
    """It changes nothing of the hero, takes no time, and shows nothing new."""
    game = NetHackGame(small_config(environment__max_episode_steps=1000).environment, seed=3)
    keys = [chr(key) for key in game.get_wrapper_attr("actions")]
    random, tried = np.random.default_rng(0), set()
    observation, _ = game.reset()
    for action in random.integers(len(keys), size=3000):
        before = {key: np.array(observation[key]) for key in ("action_mask", "blstats", "glyphs")}
        observation, _, terminated, truncated, _ = game.step(action)
        if not before["action_mask"][action]:
            tried.add(keys[action])
            assert all((observation[key] == before[key]).all() for key in ("blstats", "glyphs")), keys[action]
        if terminated or truncated:
            observation, _ = game.reset()
    game.close()
    assert tried >= set("\r<>hjklHJKLyubnYUBN")


def test_everything_is_offered_while_the_game_asks() -> None:
    """A kick asks for a direction, and `>` is one."""
    game = NetHackGame(small_config().environment, seed=1)
    keys = [chr(key) for key in game.get_wrapper_attr("actions")]
    observation, _ = game.reset()
    assert not observation["action_mask"].all()
    observation, *_ = game.step(keys.index("\x04"))
    assert observation["action_mask"].all()
    game.close()


def test_a_configuration_without_a_mask_offers_everything() -> None:
    game = NetHackGame(small_config(environment__action_mask=False).environment, seed=1)
    assert game.reset()[0]["action_mask"].all()
    game.close()


def test_random_play_draws_evenly_from_what_is_offered() -> None:
    mask = np.tile(np.array([[1, 0, 1, 1]], dtype=np.int8), (3000, 1))
    counts = np.bincount(random_actions(mask, np.random.default_rng(1)), minlength=4)
    assert counts[1] == 0 and counts[[0, 2, 3]].min() > 900
