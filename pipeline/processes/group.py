"""A process that leads a group of its own, and the whole group's end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil

from pipeline.processes import leash

LEASH = Path(leash.__file__)
_PATIENCE_SECONDS = 10.0


class Process(Protocol):
    """The leader of a group; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code (negative: killed by that signal). Raises subprocess.TimeoutExpired."""


class ProcessGroup:
    """A process and all that stays in its group; `log` is the file with its output."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process, self.log = process, log

    def wait(self, seconds: float) -> int | None:
        """Returns the leader's exit code (negative: killed by that signal), or None if it runs longer than that."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Asks the group to end in order (SIGTERM). Returns at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kills all processes of the group. Returns when they are gone."""
        # The group outlives its leader as long as a grandchild is in it. A dead process stays in it as a zombie until
        # its parent reaps it. That may take seconds, and this does not wait for it.
        until = time.monotonic() + _PATIENCE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:  # a process inside a system call dies later
                os.killpg(self._process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(max(0.0, until - time.monotonic()))
                if not _has_living(self._process.pid):
                    return
                time.sleep(0.02)


def _has_living(group: int) -> bool:
    """Returns whether the process group has a process that is not a zombie."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def start_leashed(command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process in a group of its own. It is killed when this process dies, and its output goes to the log.

    Ctrl-C reaches this process alone, which then ends the group in order. `options` go to Popen.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", str(LEASH), str(os.getpid()), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
