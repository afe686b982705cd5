"""The zygote: a process that has imported modules once, and forks processes that run them.

Importing torch takes seconds. Forking a process that has imported it takes milliseconds. So a launcher keeps a zygote:

    orchestrator ──socket──▶ zygote (one thread, modules imported) ──fork──▶ trainer, trainer, …

A forked process has all that one started by `exec` has: a session and process group of its own, its environment (also
in `/proc/PID/environ`, where the guardian looks for it), its working folder, its command line in `ps`, its log, and the
leash. It is killed when the zygote dies, and the zygote when its orchestrator dies. The zygote ends by itself when its
orchestrator closes the socket, or when it has had no process and no request for a while.

The program is `python -P -m pipeline.processes.zygote FD IDLE_SECONDS MODULE …`.
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
"""A zygote without a process ends after so long without a request. It shares its memory with its processes, so it costs
memory only when it has none."""
ZYGOTE_SECONDS = 60.0
"""How long a process that needs a fork waits for a zygote that still imports."""
_ROOM = "LADDER_ROOM"
"""A variable that makes room in a zygote's environment, where the kernel shows that of a forked process later."""
_ROOM_BYTES = 8192
_KILLED = -signal.SIGKILL
_FAILED = 1 << 8
"""The wait status of a process that has ended with exit code 1."""


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
        """Returns whether it has been forked; waits for that at most so many seconds."""
        until = time.monotonic() + within
        while self._pid is None and self.returncode is None and (left := until - time.monotonic()) > 0:
            self._zygote.hear(left)
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

    The thread that makes it must outlive it, because the kernel ties the leash to that thread.

    Args:
        modules: what it imports before it forks the first process.
        idle_seconds: how long it lives without a process and without a request.
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
    ) -> Forked:
        """Has it fork a process that runs `python -m MODULE ARGUMENTS`. Returns at once.

        Args:
            environment: the whole environment.
            output: the file to which standard output is added.
            errors: the file to which standard error is added; default: `output`.
            folder: the working folder; default: the zygote's.
            first: the variable that `/proc/PID/environ` shows, however little room there is.
            given: what it reads from its standard input. It is on no disk, and in no list of processes.

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
            given=given,
            umask=_umask(),
        )
        try:
            self._connection.send_bytes(json.dumps(vars(request)).encode())
        except OSError as error:
            self.close()
            raise BrokenPipeError("the zygote has ended") from error
        return forked

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
        while not self._connection.closed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self.hear(None)


def _can_fork_itself(modules: Sequence[str]) -> bool:
    """Returns whether this process has imported the modules, and runs no thread that a fork would lose."""
    return all(module in sys.modules for module in modules) and threading.active_count() == 1


def _umask() -> int:
    """This process's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    usual = os.umask(0o077)
    os.umask(usual)
    return usual


def _environment() -> dict[str, str]:
    """Returns the variables with which a zygote starts: one thread, and room for the environments that follow."""
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
    given: str
    umask: int


# The zygote's process


@dataclass
class _Server:
    connection: Connection
    idle_seconds: float
    children: dict[int, int] = field(default_factory=dict)
    """The keys of the requests, by process id."""

    def serve(self) -> _Request:
        """Forks a process for each request. Returns only in these processes, with the request."""
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
            except OSError:  # no memory, or too many processes; others run on
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
    """Makes this process a zygote for the rest of its life. Never returns."""
    try:
        _forget_exit_handlers()
        if leashed_to is not None:
            leash.die_with_parent(leashed_to)
            os.setsid()
            # The maker's files are closed, such as the one on which it holds a lock.
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
    """Cancels what the process was to do at its exit. A zygote and its processes must not do it."""
    atexit._clear()
    for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        each.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # later ones register anew


def _become(request: _Request) -> None:
    """Makes this process the one that was asked for: all but its code."""
    os.setsid()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) or number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    leash.go_first()
    os.umask(request.umask)
    if request.folder is not None:
        os.chdir(request.folder)
    _set_environment(request.environment, request.first)
    _redirect(request.given, request.output, request.errors)
    tempfile.tempdir = None  # TMPDIR may be another
    sys.argv = [request.module, *request.arguments]
    command = [sys.executable, "-P", "-m", request.module, *request.arguments]
    _overwrite("arg", b"\0".join(map(os.fsencode, command)) + b"\0")


def _run(module: str) -> int:
    """Runs the module as `python -m` does. Returns the exit code."""
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
    """Ends the process as Python does, without unwinding the stack, which may be the maker's."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _redirect(given: str, output: str, errors: str | None) -> None:
    """Makes standard input say what is given and then end; leads standard output and error to the files."""
    text = os.memfd_create("stdin")
    with open(text, "w", encoding="utf-8", closefd=False) as file:
        file.write(given)
    os.lseek(text, 0, os.SEEK_SET)
    out = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    err = out if errors is None else os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for source, target in ((text, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    for each in {text, out, err}:
        if each > 2:
            os.close(each)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )


def _set_environment(environment: Mapping[str, str], first: str | None) -> None:
    """Replaces the environment, for this process and for those that look at it from outside."""
    os.environ.clear()  # now the C library has no pointer to the block that is overwritten
    os.environ.update(environment)
    names = sorted(environment, key=lambda name: name != first)
    _overwrite("env", b"".join(os.fsencode(f"{name}={environment[name]}") + b"\0" for name in names))


def _overwrite(what: str, content: bytes) -> None:
    """Writes content to where the kernel looks for a process's arguments or environment, cut to the room there.

    Fields 48 – 51 of `/proc/PID/stat` are arg_start, arg_end, env_start and env_end: proc(5).
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
