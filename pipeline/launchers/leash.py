"""Runs a command that does not outlive its orchestrator: `python leash.py ORCHESTRATOR_PID COMMAND …`.

Asks the kernel to kill this process when its parent dies (Linux: PR_SET_PDEATHSIG), and then becomes the command, so
that the command has this from its first instruction on. A file of its own, without imports that take time.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    orchestrator, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != orchestrator:  # it died before we could ask
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
