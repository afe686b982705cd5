"""A process that has imported modules once, and forks copies of itself that run them.

To import torch takes seconds; to fork a process that has it takes milliseconds. So a launcher keeps a zygote beside it:

    orchestrator ──socket──▶ zygote (one thread, modules imported) ──fork──▶ trainer, trainer, …

What a process started by `exec` has, a forked one has too: a session and process group of its own, its environment
(also as `/proc/PID/environ` shows it, by which the guardian finds it), its working folder, its command line in `ps`,
its log, and the leash: it is killed when the zygote dies, and the zygote when its orchestrator dies. The zygote ends by
itself when its orchestrator closes the socket, or when nobody has asked it for anything for a while and none of its
processes is left.

As a program: `python -P -m pipeline.processes.zygote FD IDLE_SECONDS MODULE …`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.processes import leash

IDLE_SECONDS = 120.0
"""Without a process and without a request for so long, a zygote ends. Its memory is shared with its processes, so it is
only then that it costs any."""
_ROOM = "LADDER_ROOM"
"""Room in the environment that the kernel shows, for what a forked process is told later."""
_ROOM_BYTES = 8192
_KILLED = -signal.SIGKILL
_FAILED = 1 << 8
"""The wait status of a process that has ended with exit code 1."""


class Forked:
    """A process that a zygote has forked, or is about to fork; the methods are those of `subprocess.Popen`."""

    def __init__(self, zygote: Zygote, key: int) -> None:
        self._zygote, self._key = zygote, key
        self.returncode: int | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """Its process id. Waits until it is forked, which may be while the zygote still imports.

        Raises:
            ProcessLookupError: it could not be forked, or the zygote has ended before.
        """
        while self._pid is None and self.returncode is None:
            self._zygote.hear(None)
        if self._pid is None:
            raise ProcessLookupError("the zygote could not fork it")
        return self._pid

    def was_forked(self, within: float) -> bool:
        """Whether it has been forked, at the latest after so many seconds."""
        until = time.monotonic() + within
        while self._pid is None and self.returncode is None and (left := until - time.monotonic()) > 0:
            self._zygote.hear(left)
        return self._pid is not None

    def poll(self) -> int | None:
        self._zygote.hear(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; negative: killed by that signal. Raises subprocess.TimeoutExpired."""
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
    """This process's end of a zygote.

    The thread that makes it must outlive it: the kernel ties the leash to that thread.

    Args:
        modules: imported once, before the first process is forked.
    """

    def __init__(self, modules: Sequence[str], idle_seconds: float = IDLE_SECONDS) -> None:
        mine, theirs = socket.socketpair()
        self._lock = threading.Lock()
        self._keys = itertools.count()
        self._forked: dict[int, Forked] = {}
        self._process: subprocess.Popen[bytes] | None = None
        with theirs:
            if _can_fork_itself(modules):
                me = os.getpid()
                if (pid := os.fork()) == 0:
                    mine.close()
                    _be_zygote(theirs.detach(), idle_seconds, leashed_to=me)
                self._pid = pid
            else:
                words = [str(theirs.fileno()), f"{idle_seconds}", *modules]
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-I",
                        leash.__file__,
                        str(os.getpid()),
                        sys.executable,
                        "-P",
                        "-m",
                        __name__,
                        *words,
                    ],
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
        """Whether it can fork, as far as is known."""
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
    ) -> Forked:
        """Forks a process that runs `python -m MODULE ARGUMENTS`; returns at once.

        Args:
            environment: the whole of it.
            output: the file to which what it prints is added.
            errors: the same for standard error; default: the same file.
            folder: the working folder; default: the zygote's.
            first: the variable that must be seen in `/proc/PID/environ`, however little room there is.

        Raises:
            BrokenPipeError: the zygote has ended.
        """
        with self._lock:
            key = next(self._keys)
            forked = self._forked[key] = Forked(self, key)
        request = _Request(
            key=key,
            module=module,
            arguments=list(arguments),
            environment=dict(environment),
            output=str(output),
            errors=None if errors is None else str(errors),
            folder=None if folder is None else str(folder),
            first=first,
        )
        try:
            self._connection.send_bytes(json.dumps(vars(request)).encode())
        except OSError as error:
            self.close()
            raise BrokenPipeError("the zygote has ended") from error
        return forked

    def hear(self, seconds: float | None) -> None:
        """Takes all the news that there is; where there is none, waits for it so long (None: until there is some)."""
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
        """It has ended; its processes with it, as they were leashed to it."""
        self._connection.close()
        for forked in self._forked.values():
            forked.returncode = _KILLED
        if self._process is not None:
            self._process.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def close(self) -> None:
        """Ends it, and with it all its processes. What had ended before keeps its exit code."""
        while not self._connection.closed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.hear(None)


def _can_fork_itself(modules: Sequence[str]) -> bool:
    """Whether this process has imported the modules itself, and runs no thread that a fork would lose."""
    return all(module in sys.modules for module in modules) and threading.active_count() == 1


def _environment() -> dict[str, str]:
    """Variables with which a zygote is started: one thread, and room for what its processes will be told."""
    return {"OPENBLAS_NUM_THREADS": "1", _ROOM: "x" * _ROOM_BYTES}


@dataclass
class _Request:
    key: int
    module: str
    arguments: list[str]
    environment: dict[str, str]
    output: str
    errors: str | None
    folder: str | None
    first: str | None


# The zygote's process


@dataclass
class _Server:
    connection: Connection
    idle_seconds: float
    children: dict[int, int] = field(default_factory=dict)
    """Process id → key."""

    def serve(self) -> _Request:
        """Forks a process for each request. Returns in each of those, with its request; the zygote itself ends."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        me = os.getpid()
        while True:
            idle = None if self.children else self.idle_seconds
            ready, _, _ = select.select([self.connection.fileno(), woken], [], [], idle)
            if not ready:
                os._exit(0)
            if woken in ready:
                os.read(woken, 512)
                self._reap()
            if self.connection.fileno() not in ready:
                continue
            try:
                request = _Request(**json.loads(self.connection.recv_bytes()))
            except (EOFError, OSError):
                os._exit(0)
            try:
                pid = os.fork()
            except OSError:  # no more memory, or too many processes; those that run are not to suffer
                self._tell({"key": request.key, "status": _FAILED})
                continue
            if pid == 0:
                leash.die_with_parent(me)
                signal.set_wakeup_fd(-1)
                for each in (woken, wake):
                    os.close(each)
                _become(request)
                self._tell({"key": request.key, "pid": os.getpid()})  # now signals reach it, and the guardian finds it
                self.connection.close()
                return request
            self.children[pid] = request.key

    def _reap(self) -> None:
        for pid in list(self.children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._tell({"key": self.children.pop(pid), "status": status})

    def _tell(self, news: dict[str, Any]) -> None:
        try:
            self.connection.send_bytes(json.dumps(news).encode())
        except OSError:
            os._exit(0)


def _be_zygote(descriptor: int, idle_seconds: float, leashed_to: int | None = None) -> None:
    """This process's rest: a zygote's. It never returns."""
    try:
        _forget_exit_handlers()
        if leashed_to is not None:
            leash.die_with_parent(leashed_to)
            os.setsid()
            # The rest is this process's no more, such as the lock that its orchestrator holds on a file.
            os.closerange(3, descriptor)
            os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends with its orchestrator
        gc.collect()
        gc.freeze()  # pages with what was imported are not written to, so they stay shared
        request = _Server(Connection(descriptor), idle_seconds).serve()
        code = _run(request.module)
    except BaseException:
        traceback.print_exc()
        code = 1
    _leave(code)


def _forget_exit_handlers() -> None:
    """What was to be done at the end of the process so far is not for this one and its copies to do."""
    atexit._clear()
    for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        each.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # later ones register anew


def _become(request: _Request) -> None:
    """Gives this process all that distinguishes the one that was asked for, but for its code."""
    os.setsid()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leash.go_first()
    if request.folder is not None:
        os.chdir(request.folder)
    _set_environment(request.environment, request.first)
    _redirect(request.output, request.errors)
    tempfile.tempdir = None  # TMPDIR may be another
    sys.argv = [request.module, *request.arguments]
    command = [sys.executable, "-P", "-m", request.module, *request.arguments]
    _overwrite("arg", b"\0".join(map(os.fsencode, command)) + b"\0")


def _run(module: str) -> int:
    """Runs the module as `python -m` does; its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException as error:
        traceback.print_exc()
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code: int) -> None:
    """Ends the process as Python would, without what stands on the stack of a process that has forked itself."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _redirect(output: str, errors: str | None) -> None:
    """Nothing to read; what is printed goes to the files."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    err = out if errors is None else os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    for each in {nothing, out, err}:
        if each > 2:
            os.close(each)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )


def _set_environment(environment: Mapping[str, str], first: str | None) -> None:
    """The whole environment, for this process and for those that look at it from outside."""
    os.environ.clear()  # so that nothing of the C library points to the block that is overwritten
    os.environ.update(environment)
    names = sorted(environment, key=lambda name: name != first)
    _overwrite("env", b"".join(os.fsencode(f"{name}={environment[name]}") + b"\0" for name in names))


def _overwrite(what: str, content: bytes) -> None:
    """Puts content, cut to the room that there is, where the kernel looks for a process's arguments or environment.

    proc(5): fields 48 – 51 of `/proc/PID/stat` are arg_start, arg_end, env_start and env_end.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = (int(each) for each in (fields[45:47] if what == "arg" else fields[47:49]))
        if 0 < start < end:
            ctypes.memmove(start, content[: end - start - 1].ljust(end - start, b"\0"), end - start)


def main() -> None:
    descriptor, idle_seconds, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    _be_zygote(int(descriptor), float(idle_seconds))


if __name__ == "__main__":
    main()
