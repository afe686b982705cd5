"""When a process may be forked."""

from __future__ import annotations

import sys


def may_fork() -> bool:
    """Returns whether this thread is Python's only one.

    A fork loses all other threads and keeps the locks that they hold. Threads of libraries that know of forks, such as
    OpenBLAS and jemalloc, do not count. Unlike `threading.active_count`, it sees threads started without `threading`.
    """
    return len(sys._current_frames()) == 1
