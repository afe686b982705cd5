"""Ctrl-C, SIGTERM and a closed terminal ask for an end in good order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def heeded(asked_to_stop: threading.Event) -> Iterator[None]:
    """While this lasts, they set the event instead of ending the process; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_signal: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()

    # What somebody has asked to be ignored (`nohup`) stays ignored.
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    names = [name for name in asked if signal.getsignal(name) is not signal.SIG_IGN]
    before = {name: signal.signal(name, ask) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
