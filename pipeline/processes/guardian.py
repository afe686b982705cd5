"""A process that ends all processes of an attempt when the orchestrator is dead, in whatever group they are.

A trainer may be a script whose children have no leash, and a killed orchestrator can end nothing. So a launcher starts
a guardian: `python guardian.py`. It reads the attempts at work from a pipe, one a line. Only the orchestrator holds the
pipe's other end. When that is closed, the orchestrator is gone: the guardian ends the processes of these attempts, and
then itself. It imports only the standard library, so it starts at once and takes little memory.
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
    """Returns the living processes with this `NAME=value` in their environment. A child inherits it in any group."""
    wanted, found = os.fsencode(marker), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                # A zombie's environment is empty.
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_all(marker: str) -> int:
    """Kills these processes until none is left. Returns how many there were."""
    until, ended = time.monotonic() + _PATIENCE_SECONDS, set()
    while (found := processes_of(marker)) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended |= set(found)
        time.sleep(_EVERY_SECONDS)
    return len(ended)


def guard(lines: Iterable[str]) -> None:
    """Reads `+NAME=value` when an attempt begins and `-NAME=value` when it is over. At the end, kills what is left."""
    at_work: set[str] = set()
    for line in lines:
        sign, marker = line[0], line[1:].rstrip("\n")
        at_work = at_work | {marker} if sign == "+" else at_work - {marker}
    for marker in at_work:
        end_all(marker)


if __name__ == "__main__":
    # These may be sent to all processes of a job. This one ends when its pipe is closed.
    for name in ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "XCPU", "VTALRM", "PROF", "IO", "PWR"):
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    guard(sys.stdin)
