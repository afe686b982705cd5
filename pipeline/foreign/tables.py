"""CSV and JSON Lines that a script adds to, read from where the last look ended."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.foreign.flags import leaves
from pipeline.foreign.row import Row

STEPS = (
    *("step", "global_step", "time/total_timesteps", "total_timesteps", "timesteps", "num_timesteps"),
    *("iteration", "iter", "update", "epoch", "episode"),
)
"""Columns that count steps, where the user names none."""
_BYTES_A_LOOK = 4 * 2**20
_LONGEST_HEADER = 2**16


class Lines:
    """The whole lines that have been added to a file. A look costs what is new, however long the file is."""

    def __init__(self, path: Path, begin: int = 0) -> None:
        self.path, self._position = path, begin

    def read(self, *, to_the_end: bool = False) -> tuple[list[str], bool]:
        """The new lines, and whether the file begins anew: it has become shorter, and they are its first ones.

        `to_the_end`: with a last line that has no end, as nothing more will be written.
        """
        size = self.path.stat().st_size
        anew = size < self._position
        if anew:
            self._position = 0
        with self.path.open("rb") as file:
            file.seek(self._position)
            text = file.read(size - self._position if to_the_end else min(_BYTES_A_LOOK, size - self._position))
        whole = len(text) if to_the_end else text.rfind(b"\n") + 1
        self._position += whole
        return text[:whole].decode(errors="replace").splitlines(), anew

    def restart(self) -> None:
        """The next look begins at the first line."""
        self._position = 0


class CsvTail:
    """The rows of a CSV file with a header. Cells that are no number are passed over.

    A script that finds a new column may write the whole file again, with another header (SB3, Lightning). The rows that
    have been read then are passed over.
    """

    def __init__(self, path: Path, begin: int = 0, step: str | None = None) -> None:
        self.path, self._step = path, step
        self._lines = Lines(path, begin)
        self._header: list[str] = []
        self._rows, self._again = 0, 0
        self.problem: str | None = None

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        header = self._read_header()
        if header is None:
            return
        if self._header and header != self._header:
            self._lines.restart()
            self._again = self._rows
        lines, anew = self._lines.read(to_the_end=to_the_end)
        if anew:
            self._again = self._rows
        self._header = header
        if self._step is not None and self._step not in header:
            self.problem = f"no column {self._step!r} in {self.path}; it has {', '.join(header[:20])}"
        for cells in csv.reader(line for line in lines if line and not line.startswith("#")):
            if cells == header:
                continue
            if self._again:
                self._again -= 1
                continue
            self._rows += 1
            if row := row_of(dict(zip(header, cells, strict=False)), self._step, self._rows):
                yield row

    def _read_header(self) -> list[str] | None:
        """The first line that is no comment; None: it is not whole yet."""
        with self.path.open("rb") as file:
            while line := file.readline(_LONGEST_HEADER):
                if not line.startswith(b"#"):
                    return next(csv.reader([line.decode(errors="replace").strip()]), []) if line[-1:] == b"\n" else None
        return None


class JsonTail:
    """The objects of a file with one in each line. Nested ones are named `outer/inner`."""

    def __init__(self, path: Path, begin: int = 0, step: str | None = None) -> None:
        self.path, self._step = path, step
        self._lines, self._rows = Lines(path, begin), 0
        self.problem: str | None = None

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        lines, _ = self._lines.read(to_the_end=to_the_end)
        for line in lines:
            try:
                given = json.loads(line)
            except ValueError:
                continue
            if isinstance(given, dict):
                self._rows += 1
                values = dict(leaves(given, "/"))
                if self._step is not None and self._step not in values:
                    self.problem = f"no key {self._step!r} in {self.path}; it has {', '.join(list(values)[:20])}"
                if row := row_of(values, self._step, self._rows):
                    yield row


def row_of(values: Mapping[str, Any], step: str | None, number: int) -> Row | None:
    """The numbers of a row; None: there are none. `number`: its step, where no column says it."""
    numbers = {name: value for name, cell in values.items() if name and (value := _number(cell)) is not None}
    column = step if step is not None else next((name for name in STEPS if name in numbers), None)
    at = numbers.get(column, number) if column is not None else number
    if column in ("step", "global_step", step):
        numbers.pop(column or "", None)
    if not numbers or not abs(at) < 2**62:
        return None
    return Row(int(at), numbers)


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None
