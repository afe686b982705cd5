"""Shortest paths on a level: the first step to the nearest frontier, to the nearest object and to the stairs down.

A frontier is a square on which the hero has not been and from which unknown squares can be seen. To walk to the nearest
one explores a map (Yamauchi 1997, https://doi.org/10.1109/CIRA.1997.613851).

A path leads around what may stop the hero: a boulder, and what the hero has tried in vain, such as a locked door. Only
where there is no other path it leads through these.

A set of squares is an integer with one bit for each square. So a layer of a breadth-first search is a few shifts.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from nle import nethack

from pipeline.environments.level import IS_STAIRS_DOWN, MAP_SHAPE, Level, map_symbols

GOALS = ("frontier", "object", "stairs_down")
"""What the paths lead to, in the order of :meth:`Paths.first_steps`."""

_WIDTH = MAP_SHAPE[1] + 1  # the last column stays empty: a step to the side never reaches another row
_STEPS = ((0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1))
"""Columns and rows of the eight steps, straight ones first."""

# Walls, iron bars, a tree, water, lava, raised drawbridges, air and clouds. A closed door opens to the hero. Of a
# square that has been seen without any of these, a monster or an object hides the floor.
_BLOCKED = map_symbols(*range(1, 12), 17, 18, 32, 34, 37, 38, 39, 40, 41)
_DOOR = map_symbols(*range(13, 17))  # no diagonal step leads through a door; a doorway without one is not meant
_OBJECT = np.zeros(nethack.MAX_GLYPH + 1, dtype=bool)
_OBJECT[nethack.GLYPH_OBJ_OFF : nethack.GLYPH_CMAP_OFF] = True
_BOULDER = np.zeros_like(_OBJECT)
for _index in range(nethack.NUM_OBJECTS):
    _object = nethack.objclass(_index)
    if ord(_object.oc_class) == nethack.ROCK_CLASS:  # a boulder or a statue is nothing to pick up
        _OBJECT[nethack.GLYPH_OBJ_OFF + _index] = False
        _BOULDER[nethack.GLYPH_OBJ_OFF + _index] = nethack.OBJ_NAME(_object) == "boulder"
_STOPS = map_symbols(15, 16) | _BOULDER  # a closed door, a boulder, and a monster that does not go away
_STOPS[: nethack.GLYPH_BODY_OFF] = True
_IN_VAIN = 4
"""Steps in vain after which what is on a square counts as in the way; the doors that open do so within a few."""


def squares(*masks: np.ndarray) -> list[int]:
    """The sets of the squares at which the masks, (21, 79) bool each, are true."""
    padded = np.zeros((len(masks), MAP_SHAPE[0], _WIDTH), dtype=bool)
    for each, mask in zip(padded, masks, strict=True):
        each[:, :-1] = mask
    packed = np.packbits(padded.reshape(len(masks), -1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def around(some: int) -> int:
    """These squares and their eight neighbours; some of the result may lie beyond the map."""
    rows = some | some << _WIDTH | some >> _WIDTH
    return rows | rows << 1 | rows >> 1


def first_step(x: int, y: int, goals: int, passable: int, doors: int) -> tuple[int, int]:
    """Columns and rows of the first step of a shortest path from (x, y) to the nearest goal; (0, 0): there is none.

    The search goes from the goals to the hero, so the layer that reaches the hero holds the first step.
    Of several steps a straight one is taken.
    """
    at = y * _WIDTH + x
    here = 1 << at
    beside = around(here)
    reached = layer = goals & passable & ~here
    while layer:
        if layer & beside:
            for dx, dy in _STEPS:
                to = at + dy * _WIDTH + dx
                if to >= 0 and layer >> to & 1 and not (dx and dy and doors & (here | 1 << to)):
                    return dx, dy
        straight = layer << 1 | layer >> 1 | layer << _WIDTH | layer >> _WIDTH
        free = layer & ~doors
        side = free << 1 | free >> 1
        diagonal = (side << _WIDTH | side >> _WIDTH) & ~doors
        layer = (straight | diagonal) & passable & ~reached
        reached |= layer
    return 0, 0


def _first_found(x: int, y: int, goals: int, ways: Iterable[int], doors: int) -> tuple[int, int]:
    """The first step through the first of the ways, sets of passable squares, through which there is a path."""
    steps = (first_step(x, y, goals, passable, doors) for passable in ways)
    return next((step for step in steps if step != (0, 0)), (0, 0))


class Paths:
    """The shortest paths on one level, as far as the hero knows it."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._for: tuple[int, int, int] | None = None
        self._steps = np.zeros((len(GOALS), 2), dtype=np.int8)
        self._tried: dict[tuple[int, int], tuple[int, int]] = {}
        """By row and column: the glyph that the square showed when it was tried last, and how often it was in vain."""

    def tried_in_vain(self, x: int, y: int, dx: int, dy: int) -> None:
        """Records that the hero has tried to step from (x, y) by (dx, dy), and is still at (x, y).

        Only where something is that may stop the hero: from a trap or from a monster's hold no step leads anywhere.
        """
        level, to = self._level, (y + dy, x + dx)
        if not (0 <= to[0] < MAP_SHAPE[0] and 0 <= to[1] < MAP_SHAPE[1]):
            return
        shows = int(level.screen[to])
        if not _STOPS[shows]:
            return
        if dx and dy and (_DOOR[level.features[y, x]] or _DOOR[level.features[to]]):
            return  # a straight step through the door may do
        before, times = self._tried.get(to, (shows, 0))
        self._tried[to] = shows, times + 1 if shows == before else 1
        if self._tried[to][1] == _IN_VAIN:
            self._for = None

    def first_steps(self, x: int, y: int) -> np.ndarray:
        """Columns and rows of the first step from (x, y) to the nearest of each of `GOALS`, (3, 2) int8.

        (0, 0): no path is known, or the hero is on stairs down. A square on which the hero has been is neither a
        frontier nor holds an object: what the hero can pick up is picked up on the way.
        """
        level = self._level
        if self._for != (level.changes, x, y):
            self._tried.pop((y, x), None)
            passable, doors, stairs, objects, unknown, fresh, boulders = squares(
                level.seen & ~_BLOCKED[level.features],
                _DOOR[level.features],
                IS_STAIRS_DOWN[level.features],
                _OBJECT[level.screen],
                ~level.seen,
                level.visited == 0,
                _BOULDER[level.screen],
            )
            free = passable & ~self._in_the_way()
            ways = dict.fromkeys((free & ~boulders, free, passable))  # the same ones are searched once
            on_stairs = stairs >> (y * _WIDTH + x) & 1
            goals = (around(unknown) & fresh, objects & fresh, 0 if on_stairs else stairs)
            self._steps = np.array([_first_found(x, y, goal, ways, doors) for goal in goals], dtype=np.int8)
            self._for = level.changes, x, y
        return self._steps

    def _in_the_way(self) -> int:
        """The set of the squares that were tried in vain several times, and look as they did then."""
        found = 0
        for (y, x), (showed, times) in self._tried.items():
            if times >= _IN_VAIN and self._level.screen[y, x] == showed:
                found |= 1 << y * _WIDTH + x
        return found
