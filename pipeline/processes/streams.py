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


def open_standard_streams() -> None:
    """Where standard input, output or error is closed, it leads nowhere.

    Python would have no stream then, and the next file that is opened, such as a database, would be the standard output
    of every process that is started.
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
    """One line on standard error."""
    written(lambda: print(f"ladder: {text}", file=sys.stderr), sys.stderr)
