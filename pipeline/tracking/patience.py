"""Waiting for a store that is away, and a stopwatch that does not count what its process slept through."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.processes.streams import written

Answer = TypeVar("Answer")
STORE_THREAD = "store"
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 5.0
_HURRY_SECONDS = 3.0
"""Time that a store has to answer once the user has asked for an end. After it, the store is not asked any more."""
_LONGEST_ANSWER_SECONDS = 300.0
"""After it the store counts as away, and is asked anew. MLflow's own time limits are far below."""
_ONCE_SECONDS = 5.0
"""Time that a store has to answer where it is asked once, beside other work."""
_GAP_SECONDS = 60.0
"""Longest time between two looks of which all counts."""


def leave(code: int) -> int:
    """Returns the exit code. Where a thread still waits for the store, it ends this process at once instead.

    A thread that SQLite keeps waiting holds its connection, and Python would wait for it at the end.
    """
    if any(thread.name == STORE_THREAD and thread.is_alive() for thread in threading.enumerate()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            written(stream.flush, stream)
        os._exit(code)
    return code


class Stopwatch:
    """Seconds since the start, as far as this process looked.

    A long gap between two looks means that the process was stopped, frozen, or asleep with the machine. What happened
    meanwhile is unknown, so a gap counts for `longest_gap` seconds at most.
    """

    def __init__(self, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self.restart()

    def restart(self) -> None:
        self._seen, self._looked = 0.0, time.monotonic()

    def look(self) -> float:
        """Seconds that count so far."""
        now = time.monotonic()
        self._seen += min(now - self._looked, self._longest_gap)
        self._looked = now
        return self._seen


class Patience:
    """How long to wait for a store that is away.

    Args:
        seconds: time after which it counts as away for good.
        asked_to_stop: once it is set, there is no more waiting.
        tell: tells the user that the store is away, and that it is back.
    """

    def __init__(self, seconds: float, asked_to_stop: threading.Event, tell: Callable[[str], None]) -> None:
        self._seconds, self._asked_to_stop, self._tell = seconds, asked_to_stop, tell
        self._away: Stopwatch | None = None
        self._gave_up: InfrastructureFailure | None = None

    def insist(self, call: Callable[[], Answer]) -> Answer:
        """Asks until there is an answer, and returns it. `call` may be made several times.

        Raises:
            InfrastructureFailure: refused, or away for good.
        """
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                return self.once(call, _HURRY_SECONDS, _LONGEST_ANSWER_SECONDS)
            except StoreAway as error:
                if self._asked_to_stop.is_set():
                    self._gave_up = error
                    raise
            self._asked_to_stop.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)

    def once(self, call: Callable[[], Answer], hurry: float = 0.0, seconds: float = _ONCE_SECONDS) -> Answer:
        """Asks once, and returns the answer. It waits `seconds` for it; once the user has asked for an end, `hurry`.

        Raises:
            StoreAway: no answer, and not away for good yet.
            InfrastructureFailure: refused, or away for good.
        """
        if self._gave_up is not None:
            raise self._gave_up
        try:
            answer = self._answer(call, hurry, seconds)
        except StoreAway as error:
            if self._asked_to_stop.is_set():
                raise
            if self._away is None:
                self._away = Stopwatch(_GAP_SECONDS)
                self._tell(f"{error}; waiting for it, at most {self._seconds:g} s")
            if self._away.look() > self._seconds:
                self._gave_up = InfrastructureFailure(f"{error} (for more than {self._seconds:g} s)")
                raise self._gave_up from error
            raise
        if self._away is not None:
            self._tell(f"the store is back after {self._away.look():.0f} s")
            self._away = None
        return answer

    def within(self, call: Callable[[], Answer], seconds: float) -> Answer:
        """Asks once for what decides over nothing, such as an upload. Whether there is an answer counts for nothing.

        Raises:
            StoreAway: no answer within `seconds`, or within a few once the user has asked for an end.
            InfrastructureFailure: as the call raises it.
        """
        since_asked = Stopwatch(_GAP_SECONDS)

        def overdue() -> str | None:
            if not self._asked_to_stop.is_set():
                since_asked.restart()
            return "no time left" if since_asked.look() > _HURRY_SECONDS else None

        return answer_of(call, seconds, overdue)

    def tell(self, text: str) -> None:
        """Tells the user."""
        self._tell(text)

    def _answer(self, call: Callable[[], Answer], hurry: float, seconds: float) -> Answer:
        asked = Stopwatch(_GAP_SECONDS)

        def overdue() -> str | None:
            if not self._asked_to_stop.is_set():
                asked.restart()
                return None
            return "the tracking store does not answer" if asked.look() > hurry else None

        return answer_of(call, seconds, overdue)


def answer_of(call: Callable[[], Answer], seconds: float, overdue: Callable[[], str | None] = lambda: None) -> Answer:
    """Calls in a thread of its own: a locked database holds its caller for 20 s, and no signal ends that.

    Raises:
        StoreAway: no answer within `seconds`, or `overdue` says why it is not waited for any longer.
    """
    box: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            box.put((call(), None))
        except BaseException as error:
            box.put((None, error))

    threading.Thread(target=ask, name=STORE_THREAD, daemon=True).start()
    asked = Stopwatch(_GAP_SECONDS)
    while True:
        try:
            answer, error = box.get(timeout=0.2)
        except queue.Empty:
            if (why := overdue()) is not None:
                raise StoreAway(why) from None
            if asked.look() > seconds:
                raise StoreAway(f"no answer within {seconds:.0f} s") from None
            continue
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]
