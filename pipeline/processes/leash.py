"""The leash: a process does not outlive the one that started it (Linux: PR_SET_PDEATHSIG).

`python leash.py PARENT_PID COMMAND …` asks the kernel to kill this process when its parent dies, and then becomes the
command. So the command is leashed from its first instruction on. The imports here take no time.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
FIRST_TO_GO = 500
"""The score of a trainer, of 1000. Where memory runs out, the kernel kills the trainer and not the orchestrator, which
restarts it."""


def die_with_parent(parent: int) -> None:
    """Has this process killed when its parent dies. Ends it at once if its parent is not `parent` any more."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


def call_itself(name: str) -> None:
    """Sets the name under which `ps` and `top` show this process: at most 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15])


def go_first() -> None:
    """Makes this process and its children the first that the kernel kills where memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as score:  # noqa: PTH123
        score.write(str(FIRST_TO_GO))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    go_first()
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:  # in one line, with the exit code that shells have for it
        print(f"{sys.argv[2]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if error.errno == errno.ENOENT else 126)
