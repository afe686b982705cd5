"""Signals that ask for an end in good order, and who can ask whether one has come."""

from __future__ import annotations

import signal
import threading

import pytest

from pipeline.processes.signals import asked_to_stop, heeded, interruptible


def test_a_signal_is_heeded_and_can_be_asked_for_while_that_lasts() -> None:
    event, before = threading.Event(), signal.getsignal(signal.SIGTERM)
    with heeded(event):
        assert not asked_to_stop()
        signal.raise_signal(signal.SIGTERM)
        assert event.is_set() and asked_to_stop()
    assert not asked_to_stop() and signal.getsignal(signal.SIGTERM) is before


SENT = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "XCPU", "VTALRM", "PROF", "PWR")


@pytest.mark.parametrize("name", SENT)
def test_what_schedulers_send_asks_for_an_end_in_order(name: str) -> None:
    event, number = threading.Event(), getattr(signal, f"SIG{name}")
    earlier = signal.signal(number, signal.SIG_DFL)
    try:
        with interruptible(), heeded(event):  # as a command does
            signal.raise_signal(number)
            assert event.is_set()
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(number)
    finally:
        signal.signal(number, earlier)


@pytest.mark.parametrize("name", ["CONT", "CHLD", "URG", "WINCH", "PIPE"])
def test_what_asks_for_nothing_ends_nothing(name: str) -> None:
    event = threading.Event()
    with heeded(event):
        signal.raise_signal(getattr(signal, f"SIG{name}"))
        assert not event.is_set()


def test_signals_of_the_program_around_it_stay_its_own() -> None:
    """A notebook, or a batch script that ignores a signal for its children."""
    event, heard = threading.Event(), []
    earlier = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, lambda *_: heard.append("mine")),
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    }
    try:
        with heeded(event):
            for number in earlier:
                signal.raise_signal(number)
        assert heard == ["mine"] and not event.is_set()
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
