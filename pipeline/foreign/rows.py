"""From the values of a line to the metrics of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.foreign.numbers import is_empty, number_in, says_missing
from pipeline.foreign.presence import Presence
from pipeline.foreign.row import Row
from pipeline.foreign.unread import Kind, Unread

STEPS = (
    *("step", "global_step", "time/total_timesteps", "total_timesteps", "timesteps", "num_timesteps"),
    *("iteration", "iter", "update", "epoch", "episode"),
)
"""Columns that count steps, where the user names none."""
_FARTHEST = 2**62


class Rows:
    """The rows of one file. What a line has beside numbers is passed over, counted, and told of.

    Args:
        step: the column of the steps; None: the first of the usual ones.
    """

    def __init__(self, path: Path, step: str | None) -> None:
        self.unread = Unread(path)
        self._path, self._step = path, step
        self._presence = Presence()
        self._any, self._column = False, step

    def row(self, values: Mapping[str, Any], number: int, line: str) -> Row | None:
        """The metrics of a line; None: it has none. `number`: its step, where no column says it."""
        numbers: dict[str, float] = {}
        missing: list[tuple[str, str]] = []
        texts: list[str] = []
        for name, cell in values.items():
            if not name:
                continue
            if (value := number_in(cell)) is not None:
                numbers[name] = value
            elif says_missing(cell):
                missing.append((name, "null" if cell is None else cell.strip()))
            elif isinstance(cell, str) and not is_empty(cell) and self._presence.had_numbers(name):
                texts.append(f"{name}: {cell}")
        column = self._step or next((name for name in STEPS if name in numbers), None)
        if self._has_lost_its_step(column, values, numbers):
            self.unread.add(Kind.NO_STEP, line)
            return None
        for text in texts:
            self.unread.add(Kind.NO_NUMBER, text)
        self._column = column or self._column
        numbers |= dict.fromkeys(self._presence.take(numbers, missing), math.nan)
        at = numbers.get(column, number) if column is not None else number
        if column in ("step", "global_step", self._step):
            numbers.pop(column or "", None)
        if not numbers:
            if not self._any:
                self.unread.add(Kind.EMPTY, line)
            return None
        self._any = True
        self.unread.drop(Kind.EMPTY)
        return Row(int(at), numbers)

    def _has_lost_its_step(self, column: str | None, values: Mapping[str, Any], numbers: Mapping[str, float]) -> bool:
        """Whether the column of the steps has no number that can be one in this line, but something else."""
        for name in (column, self._column):
            if name is not None and name in numbers and not abs(numbers[name]) < _FARTHEST:
                return True
        cell = values.get(self._column, "") if self._column is not None else ""
        return self._any and self._column not in numbers and not is_empty(cell) and not isinstance(cell, dict | list)

    def remarks(self) -> list[str]:
        """What the user should know once the file has ended."""
        silent = "; ".join(self._presence.silent())
        return [*self.unread.told().values(), *([f"{self._path}: {silent}"] if silent else [])]
