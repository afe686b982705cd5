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
def heeded(asked_to_stop: threading.Event) -> Iterator[None]:
    """Within this context, these signals set the event instead of ending the process."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()

    with _handled_by(ask):
        yield


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
