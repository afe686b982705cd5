"""The first steps of shortest paths, on drawn maps and on real levels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from nle import nethack

from pipeline.environments.entity_graph import encode
from pipeline.environments.level import MAP_SHAPE, STONE, Level
from pipeline.environments.nethack import NetHackGame
from pipeline.environments.paths import GOALS, Paths, first_step, squares
from pipeline.training.trainer import Trainer
from tests.conftest import small_config
from tests.environments.test_entity_graph import scene

CMAP = nethack.GLYPH_CMAP_OFF
BOULDER = next(index for index in range(nethack.NUM_OBJECTS) if nethack.OBJ_NAME(nethack.objclass(index)) == "boulder")
GLYPH = {
    " ": STONE,
    "|": CMAP + 1,
    "-": CMAP + 2,
    ".": CMAP + 19,
    "#": CMAP + 21,
    "+": CMAP + 15,
    ">": CMAP + 24,
    "%": nethack.GLYPH_OBJ_OFF + 10,
    "`": nethack.GLYPH_OBJ_OFF + BOULDER,
    "@": nethack.GLYPH_MON_OFF + 327,
}


def drawn(*rows: str) -> tuple[np.ndarray, tuple[int, int]]:
    """A screen (21, 79) with this map, whose top left corner is at (10, 5), and the column and row of @."""
    glyphs = np.full(MAP_SHAPE, STONE, dtype=np.int16)
    at = (0, 0)
    for row, line in enumerate(rows, start=5):
        for column, symbol in enumerate(line, start=10):
            glyphs[row, column] = GLYPH[symbol]
            at = (column, row) if symbol == "@" else at
    return glyphs, at


def explored(*rows: str, been: Iterable[tuple[int, int]] = ()) -> tuple[Level, tuple[int, int]]:
    """A drawn level, and the column and row of @; `been`: columns and rows in the drawing."""
    glyphs, at = drawn(*rows)
    level = Level()
    level.look(glyphs)
    for column, row in been:
        level.visited[5 + row, 10 + column] = 1
    level.walk(*at)
    return level, at


def steps(*rows: str, been: Iterable[tuple[int, int]] = ()) -> dict[str, tuple[int, int]]:
    """The first steps from @ on a drawn map."""
    level, at = explored(*rows, been=been)
    return {goal: (int(dx), int(dy)) for goal, (dx, dy) in zip(GOALS, Paths(level).first_steps(*at), strict=True)}


def test_a_door_leads_out_of_a_room() -> None:
    found = steps("-----", "|...|", "|@..+", "|...|", "-----")
    assert found == {"frontier": (1, 0), "object": (0, 0), "stairs_down": (0, 0)}


def test_a_path_goes_around_a_wall() -> None:
    found = steps("-------", "|..|..|", "|@.|.>|", "|..|..|", "|.....|", "-------")
    assert found["stairs_down"] in ((0, 1), (1, 1))
    assert found["frontier"] == (0, 0)  # all around is known


def test_no_diagonal_step_leads_through_a_door() -> None:
    assert steps("-----  ", "|...|  ", "|..@|  ", "---+-  ", "   #   ")["frontier"] == (0, 1)
    assert steps("-----", "|..@|", "|...+", "-----")["frontier"] == (0, 1)
    assert steps("-----", "|...|", "|..@+", "-----")["frontier"] == (1, 0)


def test_where_the_hero_has_been_is_no_frontier_and_no_object() -> None:
    corridor = "  %#@#  "
    assert steps(corridor)["object"] == (-1, 0)
    found = steps(corridor, been=((2, 0), (3, 0)))
    assert found == {"frontier": (1, 0), "object": (0, 0), "stairs_down": (0, 0)}


def test_what_cannot_be_reached_has_no_path() -> None:
    assert steps("---------", "|.@.|.>%|", "---------") == dict.fromkeys(GOALS, (0, 0))


def test_a_boulder_is_no_object_to_pick_up() -> None:
    assert steps("-----", "|@.`|", "-----")["object"] == (0, 0)


@pytest.mark.parametrize(
    "effect",
    [
        nethack.GLYPH_SWALLOW_OFF,
        nethack.GLYPH_EXPLODE_OFF,
        nethack.GLYPH_ZAP_OFF,
        nethack.GLYPH_WARNING_OFF,
        nethack.GLYPH_INVISIBLE,
        nethack.GLYPH_DETECT_OFF + 5,
        CMAP + 65,  # the first beam
        CMAP + 77,  # poison gas
        CMAP + 86,  # the inside of a monster, before NLE numbers it by monster
    ],
)
def test_what_passes_over_rock_is_no_way_through_it(effect: int) -> None:
    # There is a gap in the wall. So the hero could go on, if anything were there.
    room, (x, y) = drawn("-----", "|...|", "|..@ ", "|...|", "-----")
    engulfed = np.full(MAP_SHAPE, STONE, dtype=np.int16)
    engulfed[y - 1 : y + 2, x - 1 : x + 2] = effect
    engulfed[y, x] = GLYPH["@"]
    level = Level()
    assert level.look(room) > 0
    level.visited[6:9, 11:14] = 1
    assert level.look(engulfed) == 0
    assert level.look(room) == 0
    level.walk(x, y)
    assert not Paths(level).first_steps(x, y).any()


def test_a_boulder_is_moved_only_where_there_is_no_way_around_it() -> None:
    assert steps("-----", "|@`>|", "-----")["stairs_down"] == (1, 0)
    around = steps("------", "|@`.>|", "|.||.|", "|....|", "------")["stairs_down"]
    assert around == (0, 1)


def level_with_a_locked_door() -> tuple[Level, Paths]:
    """A walked room with @ beside a closed door in the east, and a doorway farther away in the west."""
    room = product(range(1, 8), (1, 2))
    level, _ = explored("---------", "........|", "|......@+", "---------", been=room)
    return level, Paths(level)


def test_a_door_that_does_not_open_is_left_after_some_tries() -> None:
    level, paths = level_with_a_locked_door()
    x, y = level.at or (0, 0)
    told = []
    for _ in range(6):
        told.append(tuple(paths.first_steps(x, y)[0].tolist()))
        paths.tried_in_vain(x, y, *told[-1])
    assert told[:4] == [(1, 0)] * 4
    assert told[4][0] == -1

    screen = level.screen.copy()
    screen[y, x + 1] = CMAP + 13  # the door opens after all, as to a kick
    level.look(screen)
    assert tuple(paths.first_steps(x, y)[0]) == (1, 0)


def test_a_door_that_does_not_open_is_told_again_where_nothing_else_is_left() -> None:
    level, paths = level_with_a_locked_door()
    x, y = level.at or (0, 0)
    for _ in range(9):
        paths.tried_in_vain(x, y, 1, 0)
    level.visited[6, 10] = 1  # the doorway in the west
    assert tuple(paths.first_steps(x, y)[0]) == (1, 0)


def test_a_diagonal_try_at_a_door_says_nothing_of_the_door() -> None:
    level, paths = level_with_a_locked_door()
    x, y = level.at or (0, 0)
    for _ in range(9):
        paths.tried_in_vain(x, y - 1, 1, 1)
    assert tuple(paths.first_steps(x, y)[0]) == (1, 0)


def test_tries_beyond_the_map_are_no_tries() -> None:
    level = Level()
    level.look(np.full(MAP_SHAPE, GLYPH["`"], dtype=np.int16))
    paths = Paths(level)
    paths.tried_in_vain(0, 0, -1, -1)
    paths.tried_in_vain(MAP_SHAPE[1] - 1, MAP_SHAPE[0] - 1, 1, 1)
    assert not paths._tried
    paths.tried_in_vain(0, 0, 1, 1)
    assert paths._tried


def test_a_hero_who_is_held_blames_no_open_square() -> None:
    room = product((1, 2, 3), (1, 2, 3))
    level, (x, y) = explored("-----", "|...|", "|.@..", "|...|", "-----", been=room)
    paths = Paths(level)
    for _ in range(9):
        paths.tried_in_vain(x, y, 1, 0)
    assert tuple(paths.first_steps(x, y)[0]) == (1, 0)


def test_what_the_hero_has_reached_is_no_longer_in_the_way() -> None:
    level, paths = level_with_a_locked_door()
    x, y = level.at or (0, 0)
    for _ in range(4):
        paths.tried_in_vain(x, y, 1, 0)
    assert paths.first_steps(x, y)[0, 0] == -1
    level.walk(x + 1, y)  # through the door, which closes behind the hero
    paths.first_steps(x + 1, y)
    level.visited[y, x + 1] = 0
    level.walk(x, y)
    assert tuple(paths.first_steps(x, y)[0]) == (1, 0)


def test_stairs_down_under_the_hero_need_no_path() -> None:
    level, at = explored("-------", "|@...>|", "-------")
    assert tuple(Paths(level).first_steps(*at)[2]) == (1, 0)
    level.features[at[1], at[0]] = GLYPH[">"]
    assert tuple(Paths(level).first_steps(*at)[2]) == (0, 0)


def test_paths_at_the_edges_of_the_map_stay_on_it() -> None:
    height, width = MAP_SHAPE
    (everywhere,) = squares(np.ones(MAP_SHAPE, dtype=bool))
    corners = np.zeros(MAP_SHAPE, dtype=bool)
    corners[0, 0] = True
    assert first_step(width - 1, height - 1, *squares(corners), everywhere, 0) == (-1, 0)
    assert first_step(width - 1, 0, *squares(corners), everywhere, 0) == (-1, 0)
    corners[:] = False
    corners[height - 1, width - 1] = True
    assert first_step(0, 0, *squares(corners), everywhere, 0) == (1, 0)
    assert first_step(width - 1, 0, *squares(corners), everywhere, 0) == (0, 1)


def distances(passable: np.ndarray, doors: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Length of the shortest path from each square to a goal, square by square."""
    length = np.full(passable.shape, -1)
    queue: deque[tuple[int, int]] = deque()
    for y, x in np.argwhere(goals & passable):
        length[y, x] = 0
        queue.append((y, x))
    while queue:
        y, x = queue.popleft()
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                to = y + dy, x + dx
                inside = 0 <= to[0] < passable.shape[0] and 0 <= to[1] < passable.shape[1]
                if not inside or not passable[to] or length[to] >= 0:
                    continue
                if dx and dy and (doors[y, x] or doors[to]):
                    continue
                length[to] = length[y, x] + 1
                queue.append(to)
    return length


@pytest.mark.parametrize("seed", range(20))
def test_each_step_shortens_the_path_as_a_plain_search_finds_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    passable = random.random(MAP_SHAPE) < 0.65
    doors = passable & (random.random(MAP_SHAPE) < 0.1)
    goals = passable & (random.random(MAP_SHAPE) < 0.005)
    length = distances(passable, doors, goals)
    sets = squares(goals, passable, doors)
    for y, x in random.permutation(np.argwhere(passable))[:60]:
        dx, dy = first_step(int(x), int(y), *sets)
        if goals[y, x]:
            continue  # a goal under the hero is not meant
        if length[y, x] < 0:
            assert (dx, dy) == (0, 0)
        else:
            assert length[y + dy, x + dx] == length[y, x] - 1
            assert not (dx and dy and (doors[y, x] or doors[y + dy, x + dx]))


def test_following_the_paths_explores_a_real_level() -> None:
    """A walk to frontiers sees several times the squares that a random walk of the same length sees."""

    def seen(follow: bool) -> int:
        game = NetHackGame(small_config(environment__max_episode_steps=400).environment, 2)
        random = np.random.default_rng(2)
        keys = [ord(key) for key in "kljhunby"]
        actions = {each: index for index, each in enumerate(int(a) for a in game.unwrapped.actions)}  # type: ignore[attr-defined]
        by_step = dict(zip(((0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1)), keys, strict=True))
        total = 0
        for _ in range(3):
            observation, _ = game.reset()
            ended = False
            while not ended:
                step = tuple(int(each) for each in observation["paths"][0])
                stays = not follow or step == (0, 0) or random.random() < 0.2
                action = int(random.integers(8)) if stays else actions[by_step[step]]
                observation, _, terminated, truncated, _ = game.step(action)
                total += game.new_squares
                ended = terminated or truncated
        game.close()
        return total

    assert seen(follow=True) > 2 * seen(follow=False)


def test_a_real_game_knows_which_steps_were_in_vain() -> None:
    """Random play, with prompts and running: what is in the way is a door, a boulder or a monster; also in a replay."""
    config = small_config(environment__max_episode_steps=2000).environment
    game, again = NetHackGame(config, 5), NetHackGame(config, 6)
    random = np.random.default_rng(5)
    game.reset()
    known: list[Paths] = []
    for _ in range(3000):
        observation, _, terminated, truncated, _ = game.step(int(random.integers(game.action_space.n)))  # type: ignore[attr-defined]
        known = [paths for _, paths in game._levels.values()]
        if terminated or truncated:
            game.reset()
        elif any(paths._tried for paths in known) and len(game._played) > 300:
            break
    tried = [paths._tried for paths in known]
    assert any(tried)
    blamed = {glyph for each in tried for glyph, _ in each.values()}
    assert all(glyph in (CMAP + 15, CMAP + 16, GLYPH["`"]) or glyph < nethack.GLYPH_BODY_OFF for glyph in blamed)
    replayed = again.restore(game.state())
    assert [paths._tried for _, paths in again._levels.values()] == tried
    assert (replayed["paths"] == observation["paths"]).all()
    game.close()
    again.close()


def test_an_answer_to_a_question_is_no_step() -> None:
    game = NetHackGame(small_config().environment, 5)
    keys = [int(key) for key in game.get_wrapper_attr("actions")]
    game.reset()
    tried: list[tuple[int, int, int, int]] = []
    for _, paths in game._levels.values():
        paths.tried_in_vain = lambda *step: tried.append(step)  # type: ignore[method-assign]
    game.step(keys.index(4))  # kick: in what direction?
    assert game._asks
    game.step(keys.index(ord("y")))
    assert not game._asks and not tried
    for _ in range(30):
        game.step(keys.index(ord("h")))
    assert tried
    game.close()


@pytest.mark.parametrize(("where", "stats", "graph"), [("graph", 33, True), ("stats", 63, False), ("none", 33, False)])
def test_paths_are_told_where_the_configuration_says(where: str, stats: int, graph: bool) -> None:
    config = small_config(environment__paths=where).environment
    game = NetHackGame(config, 1)
    observation, _ = game.reset()
    arrays = encode({key: np.asarray(value)[None] for key, value in observation.items()}, config)
    assert arrays["stats"].shape == (1, stats)
    assert ("paths" in arrays) is graph
    told = arrays["paths"] if graph else arrays["stats"][:, 33:]
    assert told.any() == (where != "none")


def test_a_step_is_told_as_numbers_and_as_a_direction() -> None:
    """What was told before there were directions comes first, so that older checkpoints find it where it was."""
    scenes = scene((40, 10), {})
    scenes["paths"][0] = ((0, -1), (1, 1), (0, 0))
    told = encode(scenes, small_config().environment)["paths"][0]
    assert told[:6].tolist() == [0, -1, 1, 1, 0, 0]
    assert [np.flatnonzero(each).tolist() for each in told[6:].reshape(3, 8)] == [[1], [7], []]
    steps = [(dx, dy) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dx, dy) != (0, 0)]
    found = []
    for step in steps:
        scenes["paths"][0, 0] = step
        found.append(int(encode(scenes, small_config().environment)["paths"][0, 6:14].argmax()))
    assert sorted(found) == list(range(8))


@pytest.mark.parametrize(
    ("changes", "searched"),
    [
        ({}, True),
        ({"policy__kind": "v2_gat"}, True),
        ({"policy__kind": "v2"}, False),
        ({"policy__kind": "ppo"}, False),
        ({"policy__graph": False}, False),
        ({"policy__kind": "ppo", "environment__paths": "stats"}, True),
        ({"environment__paths": "none"}, False),
    ],
)
def test_paths_are_searched_for_a_policy_that_reads_them(
    changes: dict[str, object], searched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    found = Paths.first_steps
    monkeypatch.setattr(Paths, "first_steps", lambda *args: searches.append(args) or found(*args))
    trainer = Trainer(small_config(**changes), tmp_path, lambda metrics, step: None)
    trainer.workers.call("collect", 0)
    trainer.close()
    assert bool(searches) == searched
