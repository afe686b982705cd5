"""A file that is written anew from time to time, by a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.attempt.atomic import write_atomically
from pipeline.errors import StoreAway
from pipeline.tracking.patience import STORE_THREAD

_FIRST_SECONDS = 10.0
"""From the start of the first attempt: before that there is hardly anything to see."""
_VERDICT_SECONDS = 1.0
"""From a verdict: meanwhile the next attempt is launched."""
_EVERY_SECONDS = 60.0
_REST = 50.0
"""After a writing that took a second there is none for so many, while an attempt runs."""
_SLOW_SECONDS = 2.0
"""A writing that took longer than this is rested from at a verdict too."""
_LEAVE_SECONDS = 2.0
"""Longest wait for a writing at work when the file is to be left alone."""


class Rhythm:
    """When the file is due, by the seconds of a clock that only rises."""

    def __init__(self) -> None:
        self.due = math.inf
        self._at_work = self._written = False
        self._earliest = -math.inf

    def attempt_started(self, now: float) -> None:
        self._at_work = True
        self.due = min(self.due, max(self._earliest, now + (_EVERY_SECONDS if self._written else _FIRST_SECONDS)))

    def attempt_ended(self, now: float) -> None:
        self._at_work = False
        self.due = max(self._earliest, now + _VERDICT_SECONDS)

    def taken(self) -> None:
        """It is being written: what happens from now on makes it due again."""
        self.due = math.inf

    def wrote(self, now: float, took: float) -> None:
        """It has been written, or could not be, and that took so many seconds."""
        self._written = True
        self._earliest = now + _REST * took if took > _SLOW_SECONDS else -math.inf
        again = now + max(_EVERY_SECONDS, _REST * took) if self._at_work else math.inf
        self.due = max(self._earliest, min(self.due, again))


class Rewriting:
    """Writes what `make` returns to a file, whole or not at all.

    It holds up nothing: everything is done in a thread, and an error is told once until it is over. A store that is
    away is no error.
    """

    def __init__(self, make: Callable[[], str], file: Path, complain: Callable[[str], None]) -> None:
        self._make, self._file, self._complain = make, file, complain
        self._rhythm, self._ended, self._failed = Rhythm(), False, False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def attempt_started(self) -> None:
        """An attempt runs from now on."""
        self._change(self._rhythm.attempt_started)

    def attempt_ended(self) -> None:
        """It has its verdict."""
        self._change(self._rhythm.attempt_ended)

    def end(self) -> None:
        """The file is not written any more when this returns."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LEAVE_SECONDS)

    def _change(self, change: Callable[[float], None]) -> None:
        with self._changed:
            change(time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=STORE_THREAD, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while self._is_due():
            began = time.monotonic()
            try:
                self._write()
                self._failed = False
            except StoreAway:
                pass
            except Exception as error:
                if not self._failed and not self._ended:
                    self._complain(f"the page {self._file} could not be written: {type(error).__name__}: {error}")
                self._failed = True
            with self._changed:
                now = time.monotonic()
                self._rhythm.wrote(now, now - began)

    def _is_due(self) -> bool:
        """Waits until the file is due, or is not to be written any more; returns whether it is due."""
        with self._changed:
            while not self._ended and (left := self._rhythm.due - time.monotonic()) > 0:
                self._changed.wait(None if math.isinf(left) else left)
            self._rhythm.taken()
            return not self._ended

    def _write(self) -> None:
        text = self._make()
        with self._changed:
            if not self._ended:
                write_atomically(self._file, text)
