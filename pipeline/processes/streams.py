"""Standard streams that may fail: the reader may be gone, the terminal closed, the disk full."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO


def written(write: Callable[[], None], stream: IO[str]) -> bool:
    """Returns whether the write succeeded. If it failed (closed, disk full), redirects the stream to /dev/null.

    So the stream does not fail again, nor when Python flushes it at its end, which would change the exit code.
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


def open_standard_streams() -> None:
    """Redirects each of standard input, output and error that is closed to /dev/null.

    Otherwise Python has no such stream, and the next file that is opened, such as a database, becomes the standard
    output of every process that is started.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (for as long as the process lives)


def complain(text: str) -> None:
    """Writes one line to standard error."""
    written(lambda: print(f"ladder: {text}", file=sys.stderr), sys.stderr)
