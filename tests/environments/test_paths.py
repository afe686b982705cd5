"""The first steps of shortest paths, on drawn maps and on real levels."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from nle import nethack

from pipeline.environments.entity_graph import encode
from pipeline.environments.level import MAP_SHAPE, STONE, Level
from pipeline.environments.nethack import NetHackGame
from pipeline.environments.paths import GOALS, Paths, first_step, squares
from tests.conftest import small_config

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


def steps(*rows: str, been: tuple[tuple[int, int], ...] = ()) -> dict[str, tuple[int, int]]:
    """The first steps from @ on a map whose top left corner is at (10, 5); `been`: columns and rows in the drawing."""
    glyphs = np.full(MAP_SHAPE, STONE, dtype=np.int16)
    at = (0, 0)
    for row, line in enumerate(rows, start=5):
        for column, symbol in enumerate(line, start=10):
            glyphs[row, column] = GLYPH[symbol]
            at = (column, row) if symbol == "@" else at
    level = Level()
    level.look(glyphs)
    for column, row in been:
        level.visited[5 + row, 10 + column] = 1
    level.walk(*at)
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
        CMAP + 65,  # the first beam
        CMAP + 77,  # poison gas
        CMAP + 86,  # the inside of a monster, before NLE numbers it by monster
    ],
)
def test_what_passes_over_rock_is_no_way_through_it(effect: int) -> None:
    room = np.full(MAP_SHAPE, STONE, dtype=np.int16)
    room[4:9, 19:24] = GLYPH["-"]
    room[5:8, 20:23] = GLYPH["."]
    room[6, 22], room[6, 23] = GLYPH["@"], STONE  # a gap in the wall: the hero could go on there, if anything were there
    level = Level()
    level.look(room)
    level.visited[5:8, 20:23] = 1
    engulfed = np.full(MAP_SHAPE, STONE, dtype=np.int16)
    engulfed[5:8, 21:24] = effect
    engulfed[6, 22] = GLYPH["@"]
    assert level.look(engulfed) == 0
    assert level.look(room) == 0
    level.walk(22, 6)
    assert not Paths(level).first_steps(22, 6).any()


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


@pytest.mark.parametrize(("where", "stats", "graph"), [("graph", 33, True), ("stats", 39, False), ("none", 33, False)])
def test_paths_are_told_where_the_configuration_says(where: str, stats: int, graph: bool) -> None:
    config = small_config(environment__paths=where).environment
    game = NetHackGame(config, 1)
    observation, _ = game.reset()
    arrays = encode({key: np.asarray(value)[None] for key, value in observation.items()}, config)
    assert arrays["stats"].shape == (1, stats)
    assert ("paths" in arrays) is graph
    told = arrays["paths"] if graph else arrays["stats"][:, 33:]
    assert told.any() == (where != "none")
