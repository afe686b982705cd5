"""Ends all processes of an attempt, wherever they have hidden; also for an orchestrator that is dead.

A trainer may be a script whose children know nothing of a leash, and a killed orchestrator can end nobody. So a
launcher has a guardian beside it: `python guardian.py`, which reads from a pipe the attempts that are at work, one a
line. The pipe's other end is in the orchestrator alone: when it is closed, for whatever reason, the orchestrator is
gone, and the guardian ends the processes of these attempts, and then itself. Only the standard library, so that it
starts at once and takes little memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_PATIENCE_SECONDS = 10.0
_EVERY_SECONDS = 0.02


def processes_of(marker: str) -> list[int]:
    """The living processes whose environment has this `NAME=value`: a child inherits it, whatever group it is in."""
    wanted, found = os.fsencode(marker), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                # A zombie's environment is empty.
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_all(marker: str) -> int:
    """Kills them until none is left; returns how many there were."""
    until, ended = time.monotonic() + _PATIENCE_SECONDS, set()
    while (found := processes_of(marker)) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended |= set(found)
        time.sleep(_EVERY_SECONDS)
    return len(ended)


def guard(lines: Iterable[str]) -> None:
    """Reads `+NAME=value` when an attempt begins and `-NAME=value` when it is over; at the end, ends what is left."""
    at_work: set[str] = set()
    for line in lines:
        sign, marker = line[0], line[1:].rstrip("\n")
        at_work = at_work | {marker} if sign == "+" else at_work - {marker}
    for marker in at_work:
        end_all(marker)


if __name__ == "__main__":
    guard(sys.stdin)
