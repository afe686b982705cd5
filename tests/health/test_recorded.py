"""Recorded histories of real runs: a change of a rule that trips a healthy one, or lets a failure pass, fails here."""

from __future__ import annotations

import pytest

from benchmarks.detection import Recording, recordings
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import RULE_SETS

RECORDINGS = recordings()


@pytest.mark.parametrize("rung", sorted({each.rung for each in RECORDINGS if each.is_healthy}))
def test_healthy_runs_stay_quiet(rung: str) -> None:
    runs = [each for each in RECORDINGS if each.is_healthy and each.rung == rung]
    assert runs
    alarms = {f"{each.fault.name} {each.seed}": verdict for each in runs if (verdict := _judge(each))}
    assert alarms == {}


MISTAKEN = {
    ("learning_rate", 13): "gat_oversmoothing",
    ("learning_rate", 29): "gat_oversmoothing",
    ("learning_rate", 31): "gat_oversmoothing",
    ("router_learning_rate", 13): None,
    ("router_learning_rate", 41): None,
    ("router_learning_rate", 42): None,
}
"""Known mistakes: an explosion that shows in no gradient and in a single step of the policy, and a fault that in
some runs never shows."""


@pytest.mark.parametrize("fault", sorted({each.fault.name for each in RECORDINGS if not each.is_healthy}))
def test_failures_are_seen_for_what_they_are(fault: str) -> None:
    runs = [each for each in RECORDINGS if each.fault.name == fault]
    expected = {each.seed: MISTAKEN.get((fault, each.seed), each.fault.verdict) for each in runs}
    assert {each.seed: _judge(each) for each in runs} == expected


def _judge(recording: Recording) -> str | None:
    verdict = judge(recording.history, RULE_SETS["v3"])
    return None if verdict is None else verdict.name
