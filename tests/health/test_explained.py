"""The verdict is the cause: what explains a failure that is seen first, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import V3
from pipeline.health.threshold import Condition, ThresholdRule
from tests.health.conformance import until
from tests.health.test_rules import UPDATE, healthy, history


def smoothed(start: int = 60, **metrics: dict[int, float]) -> History:
    """A run whose nodes are alike from an update on, with other values of some metrics at single updates."""
    series = healthy()
    series["gradient_norm"] = np.minimum(series["gradient_norm"], 3.0)
    series["gat_smoothing"][start:] = 0.99
    for name, values in metrics.items():
        for update, value in values.items():
            series[name][update] = value
    return history(**series)


def told(run: History) -> tuple[str, list[str]] | None:
    """The verdict, and the rules that give evidence."""
    verdict = judge(run, V3)
    return None if verdict is None else (verdict.name, [each.rule for each in verdict.evidence])


EXPLOSION = {"gradient_norm": {58: 500.0}}
JUMPS = {"approx_kl": {57: 0.3, 59: 0.2, 61: 0.4}}


@pytest.mark.parametrize(("metrics", "rule"), [(EXPLOSION, "gradient_level"), (JUMPS, "policy_jumps")])
def test_what_damaged_the_policy_explains_what_it_looks_like_afterwards(
    metrics: dict[str, dict[int, float]], rule: str
) -> None:
    alone, both = judge(smoothed(), V3), judge(smoothed(**metrics), V3)
    assert alone is not None and alone.name == "gat_oversmoothing" and len(alone.evidence) == 1
    assert both is not None and both.name == "gradient_explosion"
    assert [each.rule for each in both.evidence] == [rule, "identical_nodes"]
    assert both.evidence[1] == alone.evidence[0]
    assert both.detection_step == alone.detection_step == 68 * UPDATE
    assert not both.trusts(59 * UPDATE) and alone.evidence[0].last_good_step == 60 * UPDATE


@pytest.mark.parametrize(
    "metrics",
    [
        {"gradient_norm": {48: 500.0}},
        {"gradient_norm": {68: 500.0}},
        {"gradient_norm": {59: 90.0}},
        {"approx_kl": {59: 0.4, 61: 0.4}},
        {"nonfinite_batches": {59: 4.0}},
        {"score": {59: 1e6}},
    ],
    ids=["long before", "after the detection", "a spike that clipping holds", "two steps", "one NaN", "the score"],
)
def test_what_is_no_cause_explains_nothing(metrics: dict[str, dict[int, float]]) -> None:
    assert told(smoothed(**metrics)) == ("gat_oversmoothing", ["identical_nodes"])


def test_a_cause_that_goes_on_is_one_however_long_ago_it_began() -> None:
    for last, verdict in ((70, "gradient_explosion"), (40, "gat_oversmoothing")):
        found = told(smoothed(approx_kl=dict.fromkeys(range(10, last, 3), 0.3)))
        assert found is not None and found[0] == verdict


def test_nan_is_the_cause_of_both() -> None:
    nan = dict.fromkeys(range(48, 68, 2), 3.0)
    found = told(smoothed(gradient_norm={58: 500.0}, nonfinite_batches=nan))
    assert found == ("numerical_instability", ["nonfinite_batches", "identical_nodes"])


def test_a_policy_that_becomes_certain_is_stuck_though_it_jumps() -> None:
    series = healthy()
    series["approx_kl"][58:61], series["entropy"][60:] = 0.8, 0.001
    assert told(history(**series)) == ("reward_plateau", ["stuck_policy"])


def test_a_cause_of_which_a_rule_only_warns_gives_no_verdict() -> None:
    rules = [
        rule.model_copy(update={"action": "warn"}) if rule.verdict == "gradient_explosion" else rule for rule in V3
    ]
    found = judge(smoothed(**EXPLOSION), rules)
    assert found is not None and found.name == "gat_oversmoothing"


@pytest.mark.parametrize("metrics", [EXPLOSION, JUMPS, {"approx_kl": dict.fromkeys(range(50, 90, 4), 0.3)}])
def test_what_comes_later_changes_no_cause(metrics: dict[str, dict[int, float]]) -> None:
    """A live run and a finished one get the same verdict, whenever it is looked at."""
    whole = smoothed(**metrics)
    final = judge(whole, V3)
    assert final is not None and final.detection_step is not None
    for update in range(60, 121):
        now = judge(until(whole, update * UPDATE), V3)
        assert now == (final if update * UPDATE >= final.detection_step else None)


def test_half_the_patience_is_rounded_up() -> None:
    rule = ThresholdRule(
        name="r", verdict="gradient_explosion", conditions=(Condition(metric="x", above=1),), window=5, patience=3
    )
    last = 9 * UPDATE
    assert rule.stirred(history(x=[0, 2, 0, 0, 0, 0, 0, 0, 0]), 0, last) is None
    seen = rule.stirred(history(x=[0, 2, 0, 2, 0, 0, 0, 0, 0]), 0, last)
    assert seen is not None and (seen.onset_step, seen.detection_step) == (2 * UPDATE, 4 * UPDATE)
    assert rule.stirred(history(x=[0, 2, 0, 2, 0, 0, 0, 0, 0]), 5 * UPDATE, last) is None
    assert rule.stirred(history(x=[0, 2, 0, 2, 0, 0, 0, 0, 0]), 0, 3 * UPDATE) is None


def test_a_rate_that_is_far_too_high_is_told_by_the_policy() -> None:
    series = healthy()
    series["approx_kl"][50:80:2] = 0.2
    assert told(history(**series)) == ("gradient_explosion", ["policy_jumps"])
