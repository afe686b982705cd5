"""The log of a trainer, which may print all night: its head and its tail are kept."""

from __future__ import annotations

import contextlib
from pathlib import Path

MOST = 64 * 2**20
"""Bytes above which the middle of a log is left out."""
HEAD, TAIL = 2**20, 8 * 2**20
"""Bytes that are kept of its beginning, and of its end."""
_NOTICE = b"\n[the log is larger than %d MiB: its middle is left out here]\n"


def bound(log: Path, most: int = MOST, head: int = HEAD, tail: int = TAIL) -> None:
    """Leaves out the middle of a log that is too large, in place.

    The trainer has the file open, and appends to it: its next line goes to where the file ends then. What it writes
    while the middle is taken out may be lost.
    """
    with contextlib.suppress(OSError):
        size = log.stat().st_size
        if size <= most:
            return
        with log.open("r+b") as file:
            file.seek(size - tail)
            kept = file.read(tail)
            file.seek(head)
            file.write(_NOTICE % (most // 2**20) + kept[kept.find(b"\n") + 1 :])
            file.truncate()
