"""The launcher of this machine: each trainer is a process in a group of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pipeline.attempt.file import ATTEMPT_VARIABLE
from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.base import OWN_TRAINER, CannotStart
from pipeline.launchers.cause import refusal
from pipeline.launchers.exit import Exit, kernel_kills
from pipeline.launchers.log import bound
from pipeline.processes import guardian
from pipeline.processes.environment import their_environment
from pipeline.processes.group import Process, ProcessGroup, start_leashed
from pipeline.processes.signals import asked_to_stop
from pipeline.processes.zygote import ONE_THREAD, Forked, Zygote

GUARDIAN = Path(guardian.__file__)
PRELOADED = ("pipeline.training.trainer", "pipeline.training.worker")
"""The modules that the zygote imports. It forks each trainer of the project's own."""

_LONG_SECONDS = 366 * 24 * 3600.0
"""The starter lives as long as its launcher: it is small."""


class LocalJob:
    """A trainer and all that it has started."""

    def __init__(self, process: Process, log: Path, marker: str, launcher: LocalLauncher) -> None:
        self.log, self._process = log, process
        self._group, self._marker, self._launcher = ProcessGroup(process, log), marker, launcher
        self._killed_before = kernel_kills()
        self._exit: Exit | None = None

    @property
    def waiting(self) -> str | None:
        return None

    @property
    def place(self) -> str:
        return socket.gethostname()

    @property
    def late_seconds(self) -> float:
        return 0.0

    def wait(self, seconds: float) -> Exit | None:
        bound(self.log)
        if self._exit is None and (code := self._group.wait(seconds)) is not None:
            self._exit = Exit.of(code, self.log, kernel_kills() - self._killed_before)
        return self._exit

    def terminate(self) -> None:
        self._group.terminate()

    def kill(self) -> None:
        self._group.kill()
        guardian.end_all(self._marker)  # some processes have left the group
        if isinstance(self._process, Forked):
            self._process.end_orphans()  # and some of these show no environment
        self._launcher.tell_guardian("-", self._marker)


class LocalLauncher:
    """Starts trainers as processes of this machine."""

    def __init__(self) -> None:
        self._guardian: subprocess.Popen[str] | None = None
        self._zygote: Zygote | None = None
        self._starter: Zygote | None = None
        """It has no modules, and starts commands."""
        self._zygote_fails = self._starter_fails = False

    def warm_up(self) -> None:
        if not self._zygote_fails and (self._zygote is None or not self._zygote.alive):
            with contextlib.suppress(OSError):
                self._zygote = Zygote(PRELOADED)

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> LocalJob:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # `python` is this one
        if (why := refusal(command[0], path)) is not None:
            raise CannotStart(f"{command[0]!r} cannot be started: {why}")
        folder.mkdir(parents=True, exist_ok=True)
        log = AttemptFolder(folder).log
        marker = f"{ATTEMPT_VARIABLE}={environment.get(ATTEMPT_VARIABLE, folder)}"
        own = tuple(command) == OWN_TRAINER
        inherited = os.environ if own else their_environment()
        environment = {**inherited, "PATH": path, ATTEMPT_VARIABLE: str(folder), **environment}
        self.tell_guardian("+", marker)
        process: Process | None = None
        if own:
            environment |= ONE_THREAD  # forked or not: the same numbers
            process = self._fork(command, environment, log)
        process = process or self._start(command, environment, log)
        process = process or start_leashed(command, log, stdin=subprocess.DEVNULL, env=environment)
        return LocalJob(process, log, marker, self)

    def _fork(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked | None:
        """Returns the trainer, forked from the zygote, or None if that is not possible, as when an import fails."""
        self.warm_up()
        if self._zygote is None:
            return None
        folder = Path.cwd()
        forked = self._zygote.start(
            command[-1], environment=environment, output=log, first=ATTEMPT_VARIABLE, folder=folder
        )
        if forked is None and not self._zygote.alive:
            self._zygote, self._zygote_fails = None, True  # such as for an import that fails, or takes too long
        return forked

    def _start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked | None:
        """Returns the trainer as a process under the starter, or None if that is not possible."""
        if self._starter_fails:
            return None
        started = None
        with contextlib.suppress(OSError):
            if self._starter is None or not self._starter.alive:
                self._starter = Zygote((), idle_seconds=_LONG_SECONDS)
            started = self._starter.start("", command=command, environment=environment, output=log, folder=Path.cwd())
        if started is None and (self._starter is None or not self._starter.alive):
            self._starter, self._starter_fails = None, not asked_to_stop()
        return started

    def hold_place(self, attempt: AttemptFolder, *, own: bool) -> str | None:
        if own:  # as a rule its zygote lives, as the present trainer is under it
            self.warm_up()
        return None

    def give_up_place(self) -> None:
        """There is none."""

    def end_place(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def attach(self, attempt: Path) -> LocalJob | None:
        return None

    def remains(self, attempt: Path) -> Literal["nothing", "ended", "alive"]:
        return "nothing"

    def how_it_ended(self, attempt: Path) -> Exit | None:
        return None

    def end_remains(self, attempt: Path) -> int:
        return guardian.end_all(f"{ATTEMPT_VARIABLE}={attempt}")

    def close(self) -> None:
        for each in (self._zygote, self._starter):
            if each is not None:
                each.close()
        if self._guardian is not None and self._guardian.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian.wait()
            self._guardian = None

    def tell_guardian(self, sign: str, marker: str) -> None:
        """Adds (+) or removes (-) an attempt that the guardian ends if this process dies."""
        if self._guardian is None or self._guardian.poll() is not None:
            if sign == "-":
                return
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARDIAN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd="/",
                start_new_session=True,  # what ends this process's group must not end the guardian
                encoding="utf-8",
            )
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has been killed; the leash still holds the trainer
            self._guardian.stdin.write(f"{sign}{marker}\n")
            self._guardian.stdin.flush()
