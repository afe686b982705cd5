"""What of a script's file could not be taken as it stands: counted, and the first of each kind kept for the user."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_SHOWN = 80
"""Characters of the first one."""


class Kind(StrEnum):
    """What is odd; `{n}` lines or values of a file."""

    NO_JSON = "{lines} no JSON object, passed over"
    TOO_MANY = "{lines} longer than the header, passed over"
    TOO_FEW = "{lines} shorter than the header, read as far as they go"
    NO_TABLE = "{lines} no line of a table, passed over"
    NO_STEP = "{lines} without a number for the step, passed over"
    NO_NUMBER = "{values} no number in a column of numbers, passed over"
    EMPTY = "{lines} without any number, and no other lines"


@dataclass
class _Found:
    count: int
    first: str


class Unread:
    """The counts of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[Kind, _Found] = {}

    def add(self, kind: Kind, text: str) -> None:
        """Counts one; `text`: the line, or the value with its column."""
        if kind in self._found:
            self._found[kind].count += 1
        else:
            self._found[kind] = _Found(1, shortened(text))

    def drop(self, kind: Kind) -> None:
        """Forgets a kind."""
        self._found.pop(kind, None)

    def told(self) -> dict[Kind, str]:
        """A sentence for each kind."""
        return {kind: f"{self._path}: {_counted(kind, each.count)}; the first: {each.first}"
                for kind, each in self._found.items()}  # fmt: skip


def _counted(kind: Kind, count: int) -> str:
    one = count == 1
    lines, values = ("line is" if one else "lines are"), ("value is" if one else "values are")
    if "{lines} without" in kind:
        lines = "line" if one else "lines"
    return kind.format(lines=f"{count:,} {lines}", values=f"{count:,} {values}")


def shortened(text: str) -> str:
    """The text in one line of few characters, and what cannot be printed as Python writes it."""
    shown = text.strip()[: _SHOWN + 1]
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in shown)
    return shown if len(text.strip()) <= _SHOWN else f"{shown[:_SHOWN]}…"
