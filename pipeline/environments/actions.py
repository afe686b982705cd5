"""What the actions of an environment mean, and which of them NetHack refuses where the hero stands.

What is refused takes no time in the game and changes nothing in it. A policy that is not offered it need not learn
where it is refused (invalid action masking: Huang & Ontañón 2022, https://arxiv.org/abs/2006.14171).

This is told from what the hero remembers of the level. A trap that has just sprung and the hold of a monster do not
show there, and in these a step into a wall is a try to get free: one of some ten thousand refused keys would have taken
a turn. All steps that are offered do the same there.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from nle.env.tasks import TASK_ACTIONS

from pipeline.environments.level import IS_STAIRS_DOWN, IS_STAIRS_UP, MAP_SHAPE, Level, map_symbols

STEP_OF_KEY = dict(zip("kulnjbhy", ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1)), strict=True))
"""Columns and rows of the step of each key. A capital letter runs in that direction, and opens no door."""

# In a trap every step is a try to get out, `>` jumps into a hole and `<` climbs out of a pit. Of an unknown square
# nothing is certain.
_MAY_HELP = map_symbols(0, *range(42, 65))
_HELPS = {
    "<": _MAY_HELP | IS_STAIRS_UP,
    ">": _MAY_HELP | IS_STAIRS_DOWN,
    "\r": np.zeros_like(_MAY_HELP),  # it only answers questions
}
"""Of some keys, on which glyphs they may do something if the hero stands on them."""
_SOLID = map_symbols(*range(1, 12), 17, 18)  # walls, iron bars, a tree
_LAST_COLUMN = MAP_SHAPE[1] - 1


class Actions:
    """The actions of an environment; nothing in it changes, so games can share it (:func:`actions_of`).

    Args:
        keys: the key that each action presses.
    """

    def __init__(self, keys: tuple[int, ...]) -> None:
        letters = [chr(key) for key in keys]
        self.steps = [STEP_OF_KEY.get(letter) for letter in letters]
        """Columns and rows of the step that each action is; None: it is none."""
        self.every = np.ones(len(letters), dtype=np.int8)
        """(A,) 1 for each action; cannot be written to."""
        self.every.flags.writeable = False
        # Other keys may be prefixes, which give the next key another meaning.
        self._known = set(keys) <= {int(key) for key in TASK_ACTIONS}
        everywhere = np.ones_like(_MAY_HELP)
        self._on = np.stack([_HELPS.get(letter, everywhere) for letter in letters], axis=1).astype(np.int8)
        moves = {index: STEP_OF_KEY.get(letter.lower()) for index, letter in enumerate(letters)}
        self._moves = np.array([index for index, step in moves.items() if step], dtype=np.int64)
        self._by = np.array([step[0] + step[1] * MAP_SHAPE[1] for step in moves.values() if step], dtype=np.int64)

    def offered(self, level: Level, x: int, y: int) -> np.ndarray:
        """Whether each action may do something, (A,) 0 or 1, for a hero at (x, y) who is not asked anything.

        With keys beyond those of NLE's tasks, as in NetHack-v0, every action may.
        """
        if not self._known:
            return self.every
        underfoot = level.features[y, x]
        found = self._on[underfoot].copy()
        if _MAY_HELP[underfoot] or not 0 < x < _LAST_COLUMN:
            return found
        onto = level.screen.take(self._by + (x + y * MAP_SHAPE[1]), mode="clip")
        found[self._moves] = ~_SOLID[onto]
        return found


@cache
def actions_of(keys: tuple[int, ...]) -> Actions:
    """The actions of these keys; made once for all games of a process, since its table takes 140 kB."""
    return Actions(keys)
