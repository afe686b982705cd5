"""Ctrl-C, SIGTERM and a closed terminal ask for an end in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While this lasts, each of them raises KeyboardInterrupt, as Ctrl-C does anyway."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def heeded(asked_to_stop: threading.Event) -> Iterator[None]:
    """While this lasts, they set the event instead of ending the process."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()

    with _handled_by(ask):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Only in the main thread.

    A closed terminal stays ignored where somebody has asked for it (`nohup`). Shells have background jobs ignore Ctrl-C
    too, but who sends SIGINT to one of these means it.
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
