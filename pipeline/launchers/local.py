"""Trainers as processes of this machine, each in a process group of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import leash

LEASH = Path(leash.__file__)
_PATIENCE_SECONDS = 10.0


class LocalJob:
    """A process group on this machine."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self.log = process, log

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        # The group outlives its leader as long as a grandchild is in it.
        until = time.monotonic() + _PATIENCE_SECONDS
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:  # a process that is in the kernel's hands may take its time
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                time.sleep(0.02)


class LocalLauncher:
    """Starts processes on this machine."""

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> LocalJob:
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "trainer.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", str(LEASH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C reaches the orchestrator alone, which then ends the group in order
            )
        return LocalJob(process, log)
