"""Signals that ask a process to end in order: every one that would end it at once and can be caught."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_FAULTS = {"SIGILL", "SIGTRAP", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS"}
"""The process itself has done something impossible."""
_NO_END = {"SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH", "SIGPIPE", "SIGKILL"}
"""They end no process, cannot be caught, or stand for a write that fails, which is handled where it is written."""
ASKING: tuple[int, ...] = tuple(
    sorted(number for number in signal.valid_signals() if getattr(number, "name", "real-time") not in _FAULTS | _NO_END)
)
"""Ctrl-C, SIGTERM and a closed terminal; what schedulers send before a time limit or a preemption (SIGUSR1, SIGUSR2,
SIGXCPU, SIGALRM, …); a power supply that gives out (SIGPWR); and the rest, as nothing good comes of a sudden death."""
_ALWAYS = (signal.SIGINT, signal.SIGTERM)
"""Shells have background jobs ignore Ctrl-C, but a SIGINT that is sent to one of these is meant."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within this context, each of these signals raises KeyboardInterrupt, as Ctrl-C always does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def heeded(event: threading.Event) -> Iterator[None]:
    """Within this context, these signals set the event instead of ending the process."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        event.set()

    with _handled_by(ask):
        _heeding.append(event)
        try:
            yield
        finally:
            _heeding.remove(event)


_heeding: list[threading.Event] = []


def asked_to_stop() -> bool:
    """Returns whether any event that :func:`heeded` holds at the moment is set."""
    return any(event.is_set() for event in _heeding)


_Handler = Callable[[int, FrameType | None], None]
_own: list[_Handler] = []
"""The handlers that this module has set, and not taken back yet."""


@contextlib.contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    """Sets the handler for these signals within this context. In another thread than the main one, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _own.append(handler)
    before = handle_asking(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        _own.remove(handler)


def handle_asking(handler: _Handler) -> dict[int, Any]:
    """Sets the handler for these signals. Returns the earlier ones.

    A signal that is ignored stays so, such as a closed terminal under `nohup`; and one that the program around this has
    a use for stays its own.
    """
    before = {number: signal.getsignal(number) for number in ASKING}
    taken = {number: earlier for number, earlier in before.items() if _is_free(number, earlier)}
    for number in taken:
        signal.signal(number, handler)
    return taken


def _is_free(number: int, handler: object) -> bool:
    """Whether the signal would end this process, or asks it to end already. None: a handler that is not Python's."""
    if handler is None:
        return False
    return number in _ALWAYS or handler in (signal.SIG_DFL, *_own)


def ignore_asking() -> None:
    """Has this process ignore these signals, which may be sent to all processes of a job. Another process ends it."""
    for number in ASKING:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_IGN)
