"""Metrics of one step, as a file of a script's says them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Row:
    """Metrics of one step."""

    step: int
    metrics: dict[str, float]
    time: float | None = None
    """Seconds since 1970; None: when it was read."""


class Tail(Protocol):
    """A file that grows. Each look gives what is new."""

    path: Path
    problem: str | None
    """What is wrong with the file, in a sentence."""

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows; `to_the_end`: all of them, as nothing more will be written. Raises OSError."""
