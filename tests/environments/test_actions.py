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
ACTIONS = Actions(tuple(map(ord, KEYS)))


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


@pytest.mark.parametrize("symbol", [17, 18, 1, 11])
def test_bars_trees_and_walls_are_solid(symbol: int) -> None:
    level, at = standing_on(19)
    level.screen[at[1] - 1, at[0]] = CMAP + symbol
    assert refused(level, at) == "\rk<>"


@pytest.mark.parametrize("symbol", [0, 12, 15, 19, 32, 34, 41])
def test_what_is_unknown_open_or_deadly_is_no_wall(symbol: int) -> None:
    """Nobody knows what is behind stone; NetHack lets a hero walk into water and lava."""
    level, at = standing_on(19)
    level.screen[at[1] - 1, at[0]] = CMAP + symbol
    assert refused(level, at) == "\r<>"


@pytest.mark.parametrize("x", [0, 78])
@pytest.mark.parametrize("y", [0, 20])
def test_at_the_edge_of_the_map_steps_are_offered(x: int, y: int) -> None:
    """The neighbour beyond the edge is not the other edge."""
    level = Level()
    level.screen[:] = CMAP + 1
    level.features[:] = CMAP + 19
    assert refused(level, (x, y)) == "\r<>"


def test_masks_are_independent_of_one_another() -> None:
    enclosed, at = standing_on(19, "---", "|@|", "---")
    assert refused(enclosed, at) == "\rklHu<>"
    first = ACTIONS.offered(enclosed, *at)
    kept = first.copy()
    assert refused(*standing_on(19)) == "\r<>"
    assert (first == kept).all()


def test_an_environment_may_have_none_of_these_keys() -> None:
    assert Actions((ord("s"), ord("."))).offered(Level(), 3, 3).tolist() == [1, 1]


def test_with_prefix_keys_everything_is_offered() -> None:
    """After F a step into a wall strikes at it."""
    level, at = standing_on(19, "---", "|@.", "|..")
    assert Actions((*map(ord, KEYS), ord("F"))).offered(level, *at).all()
    game = NetHackGame(small_config(environment__id="NetHack-v0").environment, seed=1)
    assert game.reset()[0]["action_mask"].all()
    game.close()


@pytest.mark.parametrize("condition", ["CONF", "STUN", "LEV", "BLIND", "as a monster"])
def test_a_hero_who_staggers_floats_or_is_a_monster_is_offered_everything(condition: str) -> None:
    game = NetHackGame(small_config().environment, seed=1)
    observation, _ = game.reset()
    assert not observation["action_mask"].all()
    changed = {key: np.array(observation[key]) for key in ("glyphs", "blstats")}
    if condition == "as a monster":
        changed["glyphs"][changed["glyphs"] == game._own_glyph] = nethack.GLYPH_MON_OFF + 3
    else:
        changed["blstats"][nethack.NLE_BL_CONDITION] = getattr(nethack, f"BL_MASK_{condition}")
    game._explore(changed)
    assert game._memory["action_mask"].all() == (condition != "BLIND")
    game._explore(observation)
    assert not game._memory["action_mask"].all()
    game.close()


@pytest.mark.parametrize("character", ["mon-hum-neu-mal", "arc-dwa-law-fem"])
def test_what_is_refused_does_nothing_in_a_real_game(character: str) -> None:
    """It changes nothing of the hero, takes no time, and shows nothing new. These games have no trap and no hold."""
    config = small_config(environment__max_episode_steps=1000, environment__character=character).environment
    game = NetHackGame(config, seed=3)
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
