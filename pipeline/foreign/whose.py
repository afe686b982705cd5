"""Whether a file is written by the trainer of another attempt, where several run in the same folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pipeline.attempt.file import ATTEMPT_VARIABLE


def belongs_to_another(path: Path, attempt: Path) -> bool:
    """Whether a process of another attempt (and none of this one) has the file open. Linux says so; others do not.

    Args:
        attempt: this one's file, whose path its processes have in their environment.
    """
    holders = {each for each in map(_attempt_of, _holders(path)) if each is not None}
    return bool(holders) and str(attempt) not in holders


def _holders(path: Path) -> list[str]:
    """Processes that have a file open."""
    target, found = str(path.resolve()), []
    with contextlib.suppress(OSError):
        for process in os.listdir("/proc"):  # noqa: PTH208
            if process.isdigit():
                with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as entries:
                    if any(_link(entry.path) == target for entry in entries):
                        found.append(process)
    return found


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _attempt_of(process: str) -> str | None:
    with contextlib.suppress(OSError):
        for variable in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name.decode() == ATTEMPT_VARIABLE:
                return value.decode(errors="replace")
    return None
