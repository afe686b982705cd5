"""The zygote's own process: imports modules, forks a process for each request, tells how each has ended.

The program is `python -P -m pipeline.processes.zygote_process FD IDLE_SECONDS MODULE …`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline.processes import leash
from pipeline.processes.forking import may_fork
from pipeline.processes.kernel_view import overwrite
from pipeline.processes.streams import Discreet
from pipeline.secrets import learn_environment

_FAILED = 1 << 8
"""The wait status of a process that has ended with exit code 1."""


@dataclass
class Request:
    """What a process that is to be forked needs. Its fields are explained where they are given: `Zygote.run`."""

    key: int
    module: str
    arguments: list[str]
    environment: dict[str, str]
    output: str
    errors: str | None
    folder: str | None
    first: str | None
    given: str
    nested: bool
    umask: int


@dataclass
class _Server:
    connection: Connection
    idle_seconds: float
    children: dict[int, int] = field(default_factory=dict)
    """The keys of the requests, by process id."""

    def serve(self) -> Request:
        """Forks a process for each request. Returns only in these processes, with the request."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # a mask outlives exec
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
                request = Request(**json.loads(self.connection.recv_bytes()))
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
                if request.nested:
                    fork_nested(self.idle_seconds)
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


_nested: tuple[int, int] | None = None


def fork_nested(idle_seconds: float) -> None:
    """Forks a zygote of this process, for the first `Zygote` that this process makes.

    A process does so before anything else. Later it may have threads, which a fork loses, and SQLite connections, which
    SQLite forbids to take into a fork.
    """
    global _nested
    mine, theirs = socket.socketpair()
    me = os.getpid()
    if (pid := os.fork()) == 0:
        mine.close()
        be_zygote(theirs.detach(), idle_seconds, leashed_to=me)
    theirs.close()
    _nested = pid, mine.detach()


def take_nested() -> tuple[int, int] | None:
    """Returns the process id of the nested zygote and the descriptor of this end of its socket, once; or None."""
    global _nested
    nested, _nested = _nested, None
    return nested


def be_zygote(descriptor: int, idle_seconds: float, leashed_to: int | None = None) -> None:
    """Makes this process a zygote for the rest of its life. Never returns."""
    try:
        if not may_fork():
            os._exit(1)  # an import has started a thread; a fork would lose it, and keep the locks that it holds
        _forget_exit_handlers()
        if leashed_to is not None:
            leash.die_with_parent(leashed_to)
            os.setsid()
            overwrite("arg", f"{sys.executable}\0-P\0-m\0{__name__}\0".encode())
            # The maker's files are closed, such as the one on which it holds a lock.
            for each in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
                if each > 2 and each != descriptor:
                    with contextlib.suppress(OSError):  # the one with which the folder was read
                        os.close(each)
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


def _become(request: Request) -> None:
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
    overwrite("arg", b"\0".join(map(os.fsencode, command)) + b"\0")


def _run(module: str) -> int:
    """Runs the module as `python -m` does. Returns the exit code."""
    package = hasattr(sys.modules.get(module), "__path__")
    sys.modules.pop(f"{module}.__main__" if package else module, None)  # it may have been imported; now it is run
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
    out_bytes, err_bytes = (open(number, "wb", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.stdout = Discreet(out_bytes, encoding="utf-8", errors="replace")
    sys.stderr = Discreet(err_bytes, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _set_environment(environment: Mapping[str, str], first: str | None) -> None:
    """Replaces the environment, for this process and for those that look at it from outside."""
    os.environ.clear()  # now the C library has no pointer to the block that is overwritten
    os.environ.update(environment)
    learn_environment()
    names = sorted(environment, key=lambda name: name != first)
    overwrite("env", b"".join(os.fsencode(f"{name}={environment[name]}") + b"\0" for name in names))


def main() -> None:
    descriptor, idle_seconds, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    be_zygote(int(descriptor), float(idle_seconds))


if __name__ == "__main__":
    from pipeline.processes import zygote_process  # the module that forked processes import, with what it remembers

    zygote_process.main()
