"""Ctrl-C, SIGTERM and a closed terminal ask a process to end in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Sets the handler for these signals within this context. In another thread than the main one, it does nothing.

    A closed terminal stays ignored under `nohup`. Shells have background jobs ignore Ctrl-C too, but a SIGINT that is
    sent to one of these is meant.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [each for each in _ASKING if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN]
    before = {name: signal.signal(name, handler) for name in names}
    try:
        yield
    finally:
        for name, earlier in before.items():
            signal.signal(name, earlier)
