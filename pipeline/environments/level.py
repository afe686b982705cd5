"""What the hero has seen of a dungeon level, where the screen no longer shows it."""

from __future__ import annotations

import numpy as np
from nle import nethack

MAP_SHAPE = nethack.DUNGEON_SHAPE  # (21, 79)
STAIRS_UP = (nethack.GLYPH_CMAP_OFF + 23, nethack.GLYPH_CMAP_OFF + 25)  # staircase and ladder
STAIRS_DOWN = (nethack.GLYPH_CMAP_OFF + 24, nethack.GLYPH_CMAP_OFF + 26)
STONE = nethack.GLYPH_CMAP_OFF  # the glyph of an unknown square
_GLYPHS = np.arange(nethack.MAX_GLYPH + 1)
_EFFECTS = nethack.GLYPH_CMAP_OFF + 65
"""The first glyph of beams, clouds, the inside of a monster …, numbered as in NetHack 3.6's defsym.h."""
_FEATURE = (_GLYPHS > STONE) & (_GLYPHS < _EFFECTS)
_NOTHING_SEEN = np.isin(_GLYPHS, (STONE, nethack.GLYPH_INVISIBLE))
"""Of each glyph, whether it shows nothing of its square: what passes over the map, or is felt there, may be in rock."""
_NOTHING_SEEN[nethack.GLYPH_DETECT_OFF : nethack.GLYPH_BODY_OFF] = True
_NOTHING_SEEN[_EFFECTS : nethack.GLYPH_STATUE_OFF] = True


def map_symbols(*symbols: int) -> np.ndarray:
    """Which glyphs are these map symbols, (MAX_GLYPH + 1,) bool; numbered as in NetHack 3.6's defsym.h."""
    return np.isin(_GLYPHS - nethack.GLYPH_CMAP_OFF, symbols)


IS_STAIRS_UP = np.isin(_GLYPHS, STAIRS_UP)
"""Of each glyph, whether it is stairs up."""
IS_STAIRS_DOWN = np.isin(_GLYPHS, STAIRS_DOWN)
"""Of each glyph, whether it is stairs down."""


class Level:
    """Memory of one dungeon level: what is built on each square, also where the hero or something else covers it."""

    def __init__(self) -> None:
        self.screen = np.full(MAP_SHAPE, STONE, dtype=np.int16)
        """(21, 79) glyphs of the screen, as last shown."""
        self.changes = 0
        """Number of looks at which something had changed."""
        self.seen = np.zeros(MAP_SHAPE, dtype=bool)
        """(21, 79) bool: squares that have been seen, not only something that passes over them."""
        self.features = np.full(MAP_SHAPE, STONE, dtype=np.int16)
        """(21, 79) glyph of the floor, wall, door, stairs … of each square, as last seen."""
        self.visited = np.zeros(MAP_SHAPE, dtype=np.int8)
        """(21, 79) 1: squares on which the hero has been."""
        self.nearest_stairs: int | None = None
        """The smallest distance to known stairs down so far, in squares."""
        self._stairs: np.ndarray | None = np.empty((0, 2), dtype=np.int64)
        """Rows and columns of all known stairs down; None: they have changed and are searched again."""
        self.at: tuple[int, int] | None = None
        """Column and row of the hero at the last step on this level."""

    def look(self, glyphs: np.ndarray) -> int:
        """Records the screen (21, 79); returns how many squares are seen for the first time.

        Only squares that have changed since the last call are examined: a step changes a handful of 1659.
        """
        changed = np.flatnonzero(glyphs != self.screen)
        if not len(changed):
            return 0
        self.changes += 1
        now = glyphs.take(changed)
        self.screen.put(changed, now)
        new = changed[~self.seen.take(changed) & ~_NOTHING_SEEN[now]]
        self.seen.put(new, True)
        built = _FEATURE[now]
        where, feature = changed[built], now[built]
        if (IS_STAIRS_DOWN[feature] != IS_STAIRS_DOWN[self.features.take(where)]).any():
            self._stairs = None
        self.features.put(where, feature)
        return len(new)

    def walk(self, x: int, y: int) -> None:
        """Records that the hero is at (x, y) now.

        One action may move the hero many squares along a line; all of them count as visited.
        """
        x0, y0 = self.at or (x, y)
        length = max(abs(x - x0), abs(y - y0))
        if length > 1 and (x == x0 or y == y0 or abs(x - x0) == abs(y - y0)):
            self.visited[np.linspace(y0, y, length + 1).astype(int), np.linspace(x0, x, length + 1).astype(int)] = 1
        self.visited[y, x] = 1
        self.at = x, y

    def nearer_to_stairs(self, x: int, y: int) -> int:
        """How many squares (x, y) is nearer to known stairs down than the hero has ever been; records it."""
        if self._stairs is None:
            self._stairs = np.argwhere(IS_STAIRS_DOWN[self.features])
        if not len(self._stairs):
            return 0
        distance = int(abs(self._stairs - (y, x)).max(axis=1).min())
        before = distance if self.nearest_stairs is None else self.nearest_stairs
        self.nearest_stairs = min(before, distance)
        return before - self.nearest_stairs
