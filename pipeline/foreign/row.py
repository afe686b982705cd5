"""Metrics of one step, as a file of a script's says them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pipeline.foreign.unread import Unread

_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")
_LONGEST_NAME = 250


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
    unread: Unread

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows; `to_the_end`: all of them, as nothing more will be written. Raises OSError."""

    def remarks(self) -> list[str]:
        """What the user should know once the file has ended, a sentence each."""


@lru_cache(maxsize=10_000)
def metric_name(name: str) -> str:
    """The name as MLflow takes it: other characters than letters, digits and `/_-.: ` become `_`."""
    parts = [part for part in _NOT_IN_NAMES.sub("_", name).split("/") if part not in ("", ".")]
    return "/".join("_" if part == ".." else part for part in parts)[:_LONGEST_NAME].rstrip("/") or "_"
