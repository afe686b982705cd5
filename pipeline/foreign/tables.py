"""CSV and JSON Lines that a script adds to, read from where the last look ended."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.foreign.flags import leaves
from pipeline.foreign.numbers import number_in, says_missing
from pipeline.foreign.row import Row
from pipeline.foreign.rows import Rows
from pipeline.foreign.unread import Kind, shortened

_BYTES_A_LOOK = 4 * 2**20
_LONGEST_HEADER = 2**16
_LINES_OF_A_ROW = 20
"""A text in quotes may have line ends."""
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""Stands at the beginning of a file that Windows programs write."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_COMMENT = re.compile(r"#(?!(?:div/0|num|value|null)!|n/a)", re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_COMMA = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
"""A decimal comma, where commas do not stand between cells."""
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,:\[\]{}"]+')
"""A text of a JSON line, or what stands outside of texts."""


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
        first = self._position == 0
        self._position += whole
        lines = text[:whole].decode(errors="replace").split("\n")
        if first:
            lines[0] = lines[0].removeprefix(_MARK)
        return [line for each in lines if (line := each.rstrip("\r")).strip()], anew

    def restart(self) -> None:
        """The next look begins at the first line."""
        self._position = 0


class CsvTail:
    """The rows of a table with a header; cells are apart by commas, semicolons or tabs.

    A script that finds a new column may write the whole file again, with another header (SB3, Lightning). The rows that
    have been read then are passed over. One that is started again may add a second header.
    """

    def __init__(self, path: Path, begin: int = 0, step: str | None = None) -> None:
        self.path, self._step = path, step
        self._lines = Lines(path, begin)
        self._header: list[str] = []
        self._columns: list[str] = []
        self._delimiter = ","
        self._read, self._again = 0, 0
        self._rows = Rows(path, step)
        self.unread = self._rows.unread
        self.problem: str | None = None

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        header = self._read_header()
        if header is None:
            return
        if self._header and header != self._header:
            self._lines.restart()
            self._again = self._read
        lines, anew = self._lines.read(to_the_end=to_the_end)
        if anew:
            self._again = self._read
        if anew or header != self._header:
            self._header = self._columns = header
        if self._step is not None and self._step not in self._columns:
            self.problem = (
                f"trainer.metrics.step: no column {self._step!r} in {self.path}; it has {', '.join(header[:20])}"
            )
        elif header and all(number_in(each) is not None for each in header):
            self.problem = (
                f"trainer.metrics: {self.path} has no header: its first line is {shortened(','.join(header))}"
            )
        for line, cells in self._cells([line for line in lines if not _COMMENT.match(line)]):
            if cells is not None and self._is_header(cells):
                self._columns = cells
                continue
            if self._again:
                self._again -= 1
                continue
            self._read += 1
            if (row := self._row(line, cells)) is not None:
                yield row

    def _row(self, line: str, cells: list[str] | None) -> Row | None:
        columns = len(self._columns)
        if cells is None:
            self.unread.add(Kind.NO_TABLE, line)
            return None
        if any(cells[columns:]):
            self.unread.add(Kind.TOO_MANY, line)
            return None
        if any(self._columns[len(cells) :]):
            self.unread.add(Kind.TOO_FEW, line)
        if self._delimiter == ";":
            cells = [each.replace(",", ".") if _COMMA.fullmatch(each) else each for each in cells]
        return self._rows.row(dict(zip(self._columns, cells, strict=False)), self._read, line)

    def _is_header(self, cells: list[str]) -> bool:
        """Whether a line is the header once more, or another one with most of its columns."""
        if cells in (self._header, self._columns):
            return True
        known = set(self._columns) & set(cells)
        return 2 * len(known) > len(self._columns) and all(each and number_in(each) is None for each in cells)

    def _cells(self, lines: Sequence[str]) -> Iterator[tuple[str, list[str] | None]]:
        """Each line with its cells, None where it has none. A line whose quotes are open goes on in the next ones."""
        index = 0
        while index < len(lines):
            line, end = lines[index], index + 1
            while line.count('"') % 2 and end < min(len(lines), index + _LINES_OF_A_ROW):
                line, end = f"{line}\n{lines[end]}", end + 1
            if line.count('"') % 2:
                line, end = lines[index], index + 1
            yield line, self._split(line)
            index = end

    def _split(self, line: str) -> list[str] | None:
        if line.count('"') % 2:
            return None
        try:
            return next(
                csv.reader(line.splitlines(keepends=True), delimiter=self._delimiter, skipinitialspace=True), []
            )
        except csv.Error:
            return None

    def _read_header(self) -> list[str] | None:
        """The first line that is no comment; None: it is not whole yet, or nothing can be read."""
        with self.path.open("rb") as file:
            while text := file.readline(_LONGEST_HEADER):
                if text.startswith(_UTF16):
                    self.problem = f"trainer.metrics: {self.path} is UTF-16; UTF-8 is read"
                    return None
                line = text.decode(errors="replace").removeprefix(_MARK).strip()
                if not line or line.startswith("#"):
                    continue
                if text[-1:] != b"\n":
                    return None
                bare = _QUOTED.sub("", line)
                self._delimiter = max(",;\t", key=bare.count)
                return [each.strip() for each in self._split(line) or []]
        return None

    def remarks(self) -> list[str]:
        """What the user should know once the file has ended."""
        return [*([self.problem] if self.problem else []), *self._rows.remarks()]


class JsonTail:
    """The objects of a file with one in each line. Nested ones are named `outer/inner`."""

    def __init__(self, path: Path, begin: int = 0, step: str | None = None) -> None:
        self.path, self._step = path, step
        self._lines, self._read = Lines(path, begin), 0
        self._rows = Rows(path, step)
        self.unread = self._rows.unread
        self.problem: str | None = None

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        lines, _ = self._lines.read(to_the_end=to_the_end)
        for line in lines:
            if (given := _object(line)) is None:
                self.unread.add(Kind.NO_JSON, line)
                continue
            self._read += 1
            values = dict(leaves(given, "/"))
            if self._step is not None and self._step not in values:
                self.problem = (
                    f"trainer.metrics.step: no key {self._step!r} in {self.path}; it has {', '.join(list(values)[:20])}"
                )
            if (row := self._rows.row(values, self._read, line)) is not None:
                yield row

    def remarks(self) -> list[str]:
        """What the user should know once the file has ended."""
        return [*([self.problem] if self.problem else []), *self._rows.remarks()]


def _object(line: str) -> dict[str, Any] | None:
    """The object of a line, also of one whose numbers are spelt as JSON does not allow; None: it has none."""
    for text in (line, None):
        try:
            given = json.loads(_WORD.sub(_as_json, line) if text is None else text)
        except (ValueError, RecursionError):
            continue
        return given if isinstance(given, dict) else None
    return None


def _as_json(word: re.Match[str]) -> str:
    """A word of a line as JSON has it: `nan`, `-inf`, `+0.5`, `None`, `True`."""
    text = word[0]
    if text.startswith('"'):
        return text
    if text in ("True", "False"):
        return text.lower()
    number = number_in(text)
    return json.dumps(number) if number is not None else "null" if says_missing(text) else text
