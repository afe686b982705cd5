"""The zygote: a process that has imported modules once, and forks processes that run them.

Importing torch takes seconds. Forking a process that has imported it takes milliseconds. So a launcher keeps a zygote:

    orchestrator ──socket──▶ zygote (one thread, modules imported) ──fork──▶ trainer, trainer, …

A forked process has all that one started by `exec` has: a session and process group of its own, its environment (also
in `/proc/PID/environ`, where the guardian looks for it), its working folder, its command line in `ps`, its log, and the
leash. It is killed when the zygote dies, and the zygote when its orchestrator dies. The zygote ends by itself when its
orchestrator closes the socket, or when it has had no process and no request for a while.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.processes import leash, zygote_process
from pipeline.processes.signals import asked_to_stop
from pipeline.processes.zygote_process import Request, take_nested

IDLE_SECONDS = 120.0
"""A zygote without a process ends after so long without a request. It shares its memory with its processes, so it costs
memory only when it has none."""
ZYGOTE_SECONDS = 60.0
"""How long a process that needs a fork waits for a zygote that still imports."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Variables with which NumPy has one thread, so that a fork loses none."""
_ROOM = "LADDER_ROOM"
"""A variable that makes room in a zygote's environment, where the kernel shows that of a forked process later."""
_ROOM_BYTES = 8192
_PATIENCE_SECONDS = 10.0
_KILLED = -signal.SIGKILL


class Forked:
    """A process that a zygote has forked or will fork. The methods are those of `subprocess.Popen`."""

    def __init__(self, zygote: Zygote, key: int) -> None:
        self._zygote, self._key = zygote, key
        self.returncode: int | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The process id. Waits for the fork, and so for the zygote's imports.

        Raises:
            ProcessLookupError: it could not be forked, or the zygote ended before.
        """
        while self._pid is None and self.returncode is None:
            self._zygote.hear(None)
        if self._pid is None:
            raise ProcessLookupError("the zygote could not fork it")
        return self._pid

    def was_forked(self, within: float) -> bool:
        """Returns whether it has been forked. Waits at most so many seconds, or until the user asks to stop."""
        until = time.monotonic() + within
        while self._pid is None and self.returncode is None and (left := until - time.monotonic()) > 0:
            if asked_to_stop():
                break
            self._zygote.hear(min(left, 0.5))
        return self._pid is not None

    def poll(self) -> int | None:
        self._zygote.hear(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit code (negative: killed by that signal). Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            self._zygote.hear(None if until is None else max(0.0, until - time.monotonic()))
            if self.returncode is None and until is not None and time.monotonic() >= until:
                raise subprocess.TimeoutExpired(f"process {self._pid}", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """A zygote, seen from the process that makes it.

    The thread that makes it must outlive it: the kernel ties the leash to that thread. A process that was forked
    with `nested` has its first zygote already, if that one's modules will do.

    Args:
        modules: what it imports before it forks the first process.
        idle_seconds: how long it lives without a process and without a request.
    """

    def __init__(self, modules: Sequence[str], idle_seconds: float = IDLE_SECONDS) -> None:
        self._lock = threading.Lock()
        self._keys = itertools.count()
        self._forked: dict[int, Forked] = {}
        self._process: subprocess.Popen[bytes] | None = None
        nested = take_nested() if all(module in sys.modules for module in modules) else None
        if nested is not None:
            self._pid, descriptor = nested
            self._connection = Connection(descriptor)
            return
        mine, theirs = socket.socketpair()
        with theirs:
            words = ["-m", zygote_process.__name__, str(theirs.fileno()), f"{idle_seconds}", *modules]
            leashed = [sys.executable, "-I", leash.__file__, str(os.getpid())]
            self._process = subprocess.Popen(
                [*leashed, sys.executable, "-P", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_environment()},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._pid = self._process.pid
        self._connection = Connection(mine.detach())

    @property
    def alive(self) -> bool:
        """Whether it has not ended, as far as it has said."""
        self.hear(0)
        return not self._connection.closed

    def run(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        output: Path,
        errors: Path | None = None,
        folder: Path | None = None,
        first: str | None = None,
        given: str = "",
        nested: bool = False,
    ) -> Forked:
        """Has it fork a process that runs `python -m MODULE ARGUMENTS`. Returns at once.

        Args:
            environment: the whole environment.
            output: the file to which standard output is added.
            errors: the file to which standard error is added; default: `output`.
            folder: the working folder; default: the zygote's.
            first: the variable that `/proc/PID/environ` shows, however little room there is.
            given: what it reads from its standard input. It is on no disk, and in no list of processes.
            nested: whether it gets a zygote of its own, with the same modules: the first that it makes.

        Raises:
            BrokenPipeError: the zygote has ended.
        """
        with self._lock:
            key = next(self._keys)
            forked = self._forked[key] = Forked(self, key)
        request = Request(
            key=key,
            module=module,
            arguments=list(arguments),
            environment=dict(environment),
            output=str(output),
            errors=None if errors is None else str(errors),
            folder=None if folder is None else str(folder),
            first=first,
            given=given,
            nested=nested,
            umask=_umask(),
        )
        try:
            self._connection.send_bytes(json.dumps(vars(request)).encode())
        except OSError as error:
            self.close()
            raise BrokenPipeError("the zygote has ended") from error
        return forked

    def start(self, module: str, **options: Any) -> Forked | None:
        """Forks a process as :meth:`run` does, and waits for the fork.

        Returns None where there is none in time; then the zygote is closed, or cannot fork this one.
        """
        with contextlib.suppress(OSError):
            forked = self.run(module, **options)
            if forked.was_forked(ZYGOTE_SECONDS):
                return forked
            if forked.returncode is None:  # it still imports; otherwise others may be running that it has forked
                self.close()
        return None

    def hear(self, seconds: float | None) -> None:
        """Takes all the news that has arrived. Without any, waits at most so long for some (None: for ever)."""
        with self._lock:
            try:
                while not self._connection.closed and self._connection.poll(seconds):
                    self._take(json.loads(self._connection.recv_bytes()))
                    seconds = 0.0
            except (EOFError, OSError):
                self._end()

    def _take(self, news: dict[str, Any]) -> None:
        if "pid" in news:
            self._forked[news["key"]]._pid = news["pid"]
        else:
            self._forked.pop(news["key"]).returncode = os.waitstatus_to_exitcode(news["status"])

    def _end(self) -> None:
        """Notes that the zygote has ended. The leash has ended its processes with it."""
        self._connection.close()
        for forked in self._forked.values():
            forked.returncode = _KILLED
        if self._process is not None:
            self._process.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def close(self) -> None:
        """Kills it and all its processes. A process that has ended before keeps its exit code."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while not self._connection.closed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            if (left := until - time.monotonic()) <= 0:
                with self._lock:
                    self._end()
                return
            self.hear(left)


def _umask() -> int:
    """This process's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    usual = os.umask(0o077)
    os.umask(usual)
    return usual


def _environment() -> dict[str, str]:
    """Returns the variables with which a zygote starts: one thread, and room for the environments that follow."""
    return {**ONE_THREAD, _ROOM: "x" * _ROOM_BYTES}
