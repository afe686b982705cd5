"""Orphans: a process that outlives its parent goes to the nearest ancestor that adopts (Linux: PR_SET_CHILD_SUBREAPER).

A daemon leaves its group, its session and its environment behind, and its parent ends. Its ancestors are all that tells
where it comes from. So the process that starts trainers adopts, and ends what is under it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_SECONDS = 10.0
_EVERY_SECONDS = 0.005


def adopt_orphans() -> bool:
    """Has this process adopt all orphans among its descendants. Returns whether the kernel can do that."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    return False


def end_descendants(reap: Callable[[], None], spared: Collection[int] = ()) -> int:
    """Kills all processes under this one until none is left. Returns how many there were.

    Args:
        reap: called after each round; reaps the children of this process that have died.
        spared: children that live on, with all that is under them.
    """
    until, ended, denied = time.monotonic() + _PATIENCE_SECONDS, set[int](), set[int]()
    while (found := _descendants(spared) - denied) and time.monotonic() < until:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                ended.add(pid)
            except ProcessLookupError:
                pass
            except PermissionError:  # it has become another user
                denied.add(pid)
        time.sleep(_EVERY_SECONDS)
        reap()
    reap()
    return len(ended)


def _descendants(spared: Collection[int]) -> set[int]:
    """The living processes under this one, but for the spared children and what is under those."""
    children: dict[int, list[int]] = {}
    zombies = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                said = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                state, parent = said.rpartition(")")[2].split()[:2]
                children.setdefault(int(parent), []).append(int(entry.name))
                if state in "ZX":
                    zombies.add(int(entry.name))
    found, waiting = set(), [pid for pid in children.get(os.getpid(), []) if pid not in spared]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found - zombies
