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
from typing import Any

import psutil

from pipeline.attempt import ATTEMPT_VARIABLE
from pipeline.launchers import guardian
from pipeline.survival import leash

LEASH, GUARDIAN = Path(leash.__file__), Path(guardian.__file__)
_PATIENCE_SECONDS = 10.0


class ProcessGroup:
    """A process of this machine with all that has stayed in its group; `log` has its output."""

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
        # The group outlives its leader as long as a grandchild is in it. One that is dead stays in it as a zombie until
        # whoever has adopted it takes notice, which may last seconds: nobody needs to wait for that.
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
    """A process in a group of its own, whose output is added to the log, and which is killed when this one dies.

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


class LocalJob(ProcessGroup):
    """A trainer, and whatever it has started."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, marker: str, launcher: LocalLauncher) -> None:
        super().__init__(process, log)
        self._marker, self._launcher = marker, launcher

    def kill(self) -> None:
        super().kill()
        guardian.end_all(self._marker)  # and some leave the group
        self._launcher.tell_guardian("-", self._marker)


class LocalLauncher:
    """Starts processes on this machine."""

    def __init__(self) -> None:
        self._guardian: subprocess.Popen[str] | None = None

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> LocalJob:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # `python` is this one
        if shutil.which(command[0], path=path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "trainer.log"
        marker = f"{ATTEMPT_VARIABLE}={environment.get(ATTEMPT_VARIABLE, folder)}"
        environment = {"PATH": path, ATTEMPT_VARIABLE: str(folder), **environment}
        self.tell_guardian("+", marker)
        process = start_leashed(command, log, stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        return LocalJob(process, log, marker, self)

    def end_remains(self, attempt: Path) -> int:
        return guardian.end_all(f"{ATTEMPT_VARIABLE}={attempt}")

    def tell_guardian(self, sign: str, marker: str) -> None:
        """Which attempts are to be ended if this process cannot do it any more."""
        if self._guardian is None or self._guardian.poll() is not None:
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARDIAN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd="/",
                start_new_session=True,  # what ends this process's group must not end the guardian
            )
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it: the leash still holds the trainer itself
            self._guardian.stdin.write(f"{sign}{marker}\n")
            self._guardian.stdin.flush()
