"""What the hero remembers of a dungeon level, where the screen no longer shows it."""

from __future__ import annotations

import numpy as np
from nle import nethack

MAP_SHAPE = nethack.DUNGEON_SHAPE  # (21, 79)
STAIRS_UP = (nethack.GLYPH_CMAP_OFF + 23, nethack.GLYPH_CMAP_OFF + 25)  # staircase and ladder
STAIRS_DOWN = (nethack.GLYPH_CMAP_OFF + 24, nethack.GLYPH_CMAP_OFF + 26)
STONE = nethack.GLYPH_CMAP_OFF  # a square of which nothing is known
_FEATURE = np.array([nethack.glyph_is_cmap(glyph) for glyph in range(nethack.MAX_GLYPH + 1)])
_FEATURE[STONE] = False


class Level:
    """What the hero has seen of one dungeon level, where it may be covered now: by himself, a monster, an object."""

    def __init__(self) -> None:
        self.seen = np.zeros(MAP_SHAPE, dtype=bool)
        self.features = np.full(MAP_SHAPE, STONE, dtype=np.int16)
        """Floor, wall, door, stairs … of each square, as last seen."""
        self.visited = np.zeros(MAP_SHAPE, dtype=np.int8)
        self.nearest_stairs: int | None = None
        """The smallest distance to known stairs down so far, in squares."""
        self._at: tuple[int, int] | None = None

    def look(self, glyphs: np.ndarray) -> int:
        """Takes in what is on the screen; returns how many squares were seen for the first time."""
        new = (glyphs != STONE) & ~self.seen
        self.seen |= new
        np.copyto(self.features, glyphs, where=_FEATURE[glyphs])
        return int(np.count_nonzero(new))

    def walk(self, x: int, y: int) -> None:
        """The hero is at (x, y) now. One action may take him many squares along a line: he has been on all of them."""
        x0, y0 = self._at or (x, y)
        length = max(abs(x - x0), abs(y - y0))
        if length > 1 and (x == x0 or y == y0 or abs(x - x0) == abs(y - y0)):
            self.visited[np.linspace(y0, y, length + 1).astype(int), np.linspace(x0, x, length + 1).astype(int)] = 1
        self.visited[y, x] = 1
        self._at = x, y

    def nearer_to_stairs(self, x: int, y: int) -> int:
        """By how many squares (x, y) is nearer to known stairs down than ever before."""
        rows, columns = np.nonzero((self.features == STAIRS_DOWN[0]) | (self.features == STAIRS_DOWN[1]))
        if not rows.size:
            return 0
        distance = int(np.maximum(abs(rows - y), abs(columns - x)).min())
        before = distance if self.nearest_stairs is None else self.nearest_stairs
        self.nearest_stairs = min(before, distance)
        return before - self.nearest_stairs
