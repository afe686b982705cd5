"""Waiting: until there is an answer, as long as was agreed, or until somebody asks for an end."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.tracking.patience import Patience, Stopwatch


class Store:
    """Answers after so many calls in vain."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise StoreAway("away")
        return "answer"


def test_insists_until_there_is_an_answer_and_says_so() -> None:
    said: list[str] = []
    assert Patience(60, threading.Event(), said.append).insist(Store(2)) == "answer"
    assert said[0].startswith("away; waiting") and "is back after" in said[1] and len(said) == 2


def test_gives_up_for_good() -> None:
    patience = Patience(0.3, threading.Event(), lambda _: None)
    with pytest.raises(InfrastructureFailure, match="more than") as error:
        patience.insist(Store(1000))
    assert not isinstance(error.value, StoreAway)
    with pytest.raises(InfrastructureFailure):
        patience.insist(lambda: "too late")


def test_a_refusal_is_not_waited_for() -> None:
    def refuse() -> None:
        raise InfrastructureFailure("no such run")

    with pytest.raises(InfrastructureFailure, match="no such run"):
        Patience(60, threading.Event(), lambda _: None).insist(refuse)


def test_once_asked_to_stop_nobody_waits() -> None:
    asked = threading.Event()
    asked.set()
    patience, began = Patience(60, asked, lambda _: None), time.monotonic()
    with pytest.raises(StoreAway):
        patience.insist(lambda: time.sleep(60))
    with pytest.raises(StoreAway):
        patience.insist(lambda: "not asked any more")
    assert time.monotonic() - began < 30


def test_a_slow_answer_is_waited_for_a_moment_where_one_asks_once() -> None:
    said: list[str] = []
    patience = Patience(60, threading.Event(), said.append)
    assert patience.once(lambda: time.sleep(0.5) or "slow") == "slow" and said == []
    with pytest.raises(StoreAway, match="no answer"):
        patience.once(lambda: time.sleep(60), seconds=0.5)


def test_a_stopwatch_does_not_count_what_nobody_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pipeline.tracking.patience.time.monotonic", lambda: now)
    watch = Stopwatch(longest_gap=2.0)
    for now in (1.0, 2.0, 3.0):  # noqa: B007
        seen = watch.look()
    assert seen == 3.0
    now = 3600.0  # stopped, or asleep
    assert watch.look() == 5.0
    watch.restart()
    assert watch.look() == 0.0
