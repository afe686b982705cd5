"""Who is told of an experiment, and what happens if one of them fails."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.callbacks.callback import Callback, CallbackList
from pipeline.errors import InfrastructureFailure


class Failing(Callback):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def progress(self, latest: Mapping[str, float]) -> None:
        raise self._error


class Listening(Callback):
    def __init__(self) -> None:
        self.heard: list[Mapping[str, float]] = []

    def progress(self, latest: Mapping[str, float]) -> None:
        self.heard.append(latest)


def test_the_others_are_told_and_the_failure_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    listening = Listening()
    told = CallbackList([Failing(KeyError("random/score_low")), listening])
    for episodes in (1.0, 2.0, 3.0):
        told.progress({"episodes": episodes})
    assert [each["episodes"] for each in listening.heard] == [1.0, 2.0, 3.0]
    assert capfd.readouterr().err.count("Failing fails, and the experiment goes on: KeyError") == 1


def test_a_store_out_of_reach_is_no_failure_of_the_listener() -> None:
    with pytest.raises(InfrastructureFailure):
        CallbackList([Failing(InfrastructureFailure("away"))]).progress({})
