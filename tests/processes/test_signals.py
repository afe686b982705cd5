"""Signals that ask for an end in good order, and who can ask whether one has come."""

from __future__ import annotations

import signal
import threading

from pipeline.processes.signals import asked_to_stop, heeded


def test_a_signal_is_heeded_and_can_be_asked_for_while_that_lasts() -> None:
    event, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    with heeded(event):
        assert not asked_to_stop()
        signal.raise_signal(signal.SIGTERM)
        assert event.is_set() and asked_to_stop()
    assert not asked_to_stop() and signal.getsignal(signal.SIGTERM) is before
