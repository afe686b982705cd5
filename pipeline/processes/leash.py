"""A process that does not outlive the one that started it (Linux: PR_SET_PDEATHSIG).

As a command, `python leash.py PARENT_PID COMMAND …`: asks the kernel to kill this process when its parent dies, and
then becomes the command, so that the command has this from its first instruction on. No imports that take time.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
FIRST_TO_GO = 500
"""Of 1000: where memory runs out, the kernel takes the trainer rather than the orchestrator that would restart it."""


def die_with_parent(parent: int) -> None:
    """From now on this process is killed when its parent dies; at once if that is no longer `parent`."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we could ask
        sys.exit(1)


def call_itself(name: str) -> None:
    """What `ps` and `top` show of this process; at most 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15])


def go_first() -> None:
    """Where memory runs out, this process and its children are among the first that the kernel takes."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write(str(FIRST_TO_GO))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    go_first()
    os.execvp(sys.argv[2], sys.argv[2:])
