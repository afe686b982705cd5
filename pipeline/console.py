"""Words to a person who may be gone, or whose file may be on a full disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO


def written(write: Callable[[], None], stream: IO[str]) -> bool:
    """Whether `write` could; if the stream failed (closed, disk full), it leads nowhere from now on.

    So it fails neither again nor when Python flushes it at its end, which would change the exit code.
    """
    try:
        write()
        stream.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        return False
    return True


def complain(text: str) -> None:
    """One line on standard error."""
    written(lambda: print(f"ladder: {text}", file=sys.stderr), sys.stderr)
