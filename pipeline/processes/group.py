"""A process of this machine in a group of its own, with all that has stayed in that group."""

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
    """What a group needs of its leader; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code (negative: killed by that signal). Raises subprocess.TimeoutExpired."""


class ProcessGroup:
    """A process that leads its group; `log` has its output."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process, self.log = process, log

    def wait(self, seconds: float) -> int | None:
        """Its exit code (negative: killed by that signal), or None if it still runs after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Asks the group to end in good order (SIGTERM), and returns at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends all processes of the group, and returns when they are gone."""
        # The group outlives its leader as long as a grandchild is in it. A dead process stays in it as a zombie until
        # its parent takes notice, which may last seconds: nobody needs to wait for that.
        until = time.monotonic() + _PATIENCE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:  # a process that is in the kernel's hands may take its time
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                if not _has_living(self._process.pid):
                    return
                time.sleep(0.02)


def _has_living(group: int) -> bool:
    """Whether any process of this process group is more than a zombie."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def start_leashed(command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Starts a process in a group of its own, whose output is added to the log, and which is killed when this one dies.

    Ctrl-C reaches this process alone, which then ends the group in order. `options`: further ones of Popen.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", str(LEASH), str(os.getpid()), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
