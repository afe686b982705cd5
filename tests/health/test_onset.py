"""Where a decline began, and which weights were sound before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.health.generic import GENERIC
from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.onset import before_decline
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import V3
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Evidence
from tests.health.conformance import until

NAN, INF = np.nan, np.inf
HISTORIES = Path(__file__).parents[2] / "benchmarks" / "results" / "histories"
NOISE = np.random.default_rng(7).normal(0, 0.3, 80)
LEVEL = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 1.1, 0.9, 1.0]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        pytest.param([*LEVEL, 50.0], 9, id="a sudden step"),
        pytest.param([1.0] * 9 + [1e200], 8, id="a huge step"),
        pytest.param([0.01] * 5 + [0.16, 0.28, 0.35, 0.51, 0.6, 0.74], 4, id="below its threshold for long"),
        pytest.param([*LEVEL, 1.5, 3.0, 20.0, 400.0, 1e4], 10, id="an explosion"),
        pytest.param([5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 7, id="better, then worse"),
        pytest.param([0.01 + 0.001 * each for each in range(30)] + [0.5, 0.8], 29, id="a drift, then a step"),
        pytest.param([1, 1, 40, 1, 1, 1, 1, 60, 1, 1, 1.2, 0.9, 1, 1, 1.1, 1, 7, 12, 30, 50], 15, id="spikes before"),
        pytest.param(np.linspace(0.05, 0.8, 4), None, id="a short ramp from the start"),
        pytest.param(np.linspace(0.05, 0.8, 200), None, id="a long ramp from the start"),
        pytest.param(np.linspace(0, 10, 80) + NOISE, None, id="a noisy ramp from the start"),
        pytest.param(0.1 * 1.5 ** np.arange(12), None, id="an exponential ramp from the start"),
        pytest.param([*LEVEL, NAN], 9, id="NaN at once"),
        pytest.param([*LEVEL, 3.0, 20.0, 400.0, NAN], 9, id="an explosion that ends in NaN"),
        pytest.param([*LEVEL, INF], 9, id="infinity at once"),
        pytest.param([0.1, 0.1, NAN, 0.1, 0.1, 0.1, 0.5, 0.9], 5, id="NaN before"),
        pytest.param([NAN, NAN, 5.0], None, id="NaN, then bad"),
        pytest.param([NAN] * 3, None, id="NaN alone"),
        pytest.param([], None, id="nothing"),
        pytest.param([1.0], None, id="one value"),
        pytest.param([0.01, 0.9], 0, id="two values"),
        pytest.param([0.01, 0.16, 0.9], 0, id="three values"),
        pytest.param([0.0] * 5 + [1.0], 4, id="zeros before"),
        pytest.param([1.0] * 4, 2, id="no change at all"),
    ],
)
def test_the_last_value_before_the_decline(values: list[float], last: int | None) -> None:
    assert before_decline(np.array(values, dtype=float)) == last


@pytest.mark.parametrize("length", [30, 100])
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_ramp_after_noise_is_cut_where_it_begins(seed: int, length: int) -> None:
    noise = np.random.default_rng(seed).normal(1, 0.3, 100 + length)
    values = noise + np.r_[np.zeros(100), np.linspace(0, 10, length)]
    values[-1] = 11
    last = before_decline(values)
    assert last is not None and 85 <= last <= 100 + length // 5


def test_values_before_a_level_do_not_matter() -> None:
    values = np.r_[LEVEL * 3, np.linspace(1, 5, 20)]
    last = before_decline(values)
    assert last is not None and before_decline(values * 1000) == last == before_decline(np.r_[LEVEL, values]) - 10  # type: ignore[operator]


# Of a whole run


def run(**metrics: list[float]) -> History:
    """One report every 10 steps."""
    return History({name: [(10 * (at + 1), value) for at, value in enumerate(v)] for name, v in metrics.items()})


HIGH = ThresholdRule(
    name="high", verdict="expert_collapse", conditions=(Condition(metric="x", above=5),), window=3, patience=3
)
DECLINE = [1.0] * 10 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def evidence(history: History, *rules: Rule) -> Evidence:
    found = judge(history, rules)
    assert found is not None
    return found.evidence[0]


def test_what_was_saved_in_a_decline_is_no_start() -> None:
    found = evidence(run(x=DECLINE), HIGH)
    assert (found.onset_step, found.last_good_step, found.sound) == (150, 140, ((0, 100),))
    assert found.trusts(90) and not found.trusts(100) and not found.trusts(130)  # 110 measures what was saved at 100


def test_a_decline_from_the_first_report_leaves_no_start() -> None:
    verdict = judge(run(x=[float(each) for each in range(1, 9)]), [HIGH])
    assert verdict is not None and verdict.evidence[0].sound == ()
    assert verdict.failed_from_the_start and not any(verdict.trusts(step) for step in range(0, 100, 10))


def test_another_rule_that_held_there_speaks_against_a_start() -> None:
    other = ThresholdRule(
        name="other", verdict="reward_plateau", conditions=(Condition(metric="y", below=0),), window=9, patience=9
    )
    found = evidence(run(x=DECLINE, y=[1.0] * 7 + [-1.0, -1.0] + [1.0] * 8), HIGH, other)
    assert found.sound == ((0, 70), (90, 100))
    assert found.trusts(60) and not found.trusts(70) and not found.trusts(80) and found.trusts(90)
    silent = other.model_copy(update={"action": "warn"})
    assert evidence(run(x=DECLINE, y=[-1.0] * 17), HIGH, silent).sound == ((0, 100),)


def test_a_metric_that_is_reported_seldom_counts_until_its_next_report() -> None:
    history = run(x=DECLINE)
    for step, value in ((5, -1.0), (42, 1.0), (95, -1.0)):
        history.add("y", step, value)
    other = ThresholdRule(
        name="other", verdict="reward_plateau", conditions=(Condition(metric="y", below=0),), window=9, patience=9
    )
    assert evidence(history, HIGH, other).sound == ((40, 90),)


def test_a_monitored_metric_outside_its_normal_band_speaks_against_a_start() -> None:
    calm = {"gradient_norm": [1.0] * 20, "gat_smoothing": [0.5] * 20}
    collapse = [0.01] * 8 + [0.8] * 12
    usual = run(expert_usage_excess=collapse, **calm)
    loud = run(expert_usage_excess=collapse, **{**calm, "gradient_norm": [1.0] * 4 + [8.0, 1.0, 9.0, 9.0] + [1.0] * 12})
    assert evidence(usual, *V3).sound == ((0, 80),)
    assert evidence(loud, *V3).sound == ((0, 40), (50, 60))


def test_what_was_sound_but_for_the_router_in_its_decline() -> None:
    """From the first report on the router leans to one expert; the gradients are those of a healthy run, mostly."""
    calm = {"gradient_norm": [1.0] * 4 + [8.0, 1.0, 9.0, 9.0] + [1.0] * 12, "gat_smoothing": [0.5] * 20}
    found = evidence(run(expert_usage_excess=[0.8] * 20, alpha_entropy_ratio=[0.1] * 20, **calm), *V3)
    last = found.detection_step
    assert last is not None and not found.sound and found.sound_elsewhere == ((0, 40), (50, 60), (80, last))
    assert found.trusts(90, elsewhere=True) and not found.trusts(90) and not found.trusts(45, elsewhere=True)
    assert evidence(run(x=DECLINE), HIGH.model_copy(update={"verdict": "reward_plateau"})).sound_elsewhere == ()


def test_a_level_of_the_runs_own_is_normal() -> None:
    """Healthy sparse runs have gradients between the brief's normal and abnormal."""
    level = [6.0, 6.5, 7.0, 6.2, 6.8, 6.4] * 4
    history = run(expert_usage_excess=[0.01] * 20 + [0.8] * 12, gradient_norm=[*level, *level[:8]])
    assert evidence(history, *V3).sound == ((0, 200),)


def test_a_plateau_keeps_its_newest_weights() -> None:
    episodes = [50.0 * (at + 1) for at in range(80)]
    noise = np.random.default_rng(1).normal(10, 1, 80).tolist()
    history = run(score=noise, episodes=episodes, phase=[0.0] * 80)
    found = evidence(history, *V3)
    assert found.rule in ("reward_plateau", "flat_score") and found.trusts((found.detection_step or 0) - 10)


def test_losses_of_any_training() -> None:
    falling = (2.0 * np.exp(-np.arange(40) / 10) + 0.1).tolist()
    found = evidence(run(loss=[*falling, 1.0, 30.0, *([1e6] * 8)]), *GENERIC)
    assert found.metric == "loss" and found.onset_step == 430 and found.sound == ((0, 400),)
    found = evidence(run(loss=[*falling, *([NAN] * 8)]), *GENERIC)
    assert found.metric == "loss" and found.sound == ((0, 400),)


def test_only_the_newest_stretches_are_kept_and_read_back() -> None:
    other = ThresholdRule(
        name="other", verdict="reward_plateau", conditions=(Condition(metric="y", below=0),), window=99, patience=99
    )
    found = evidence(run(x=[1.0] * 60 + DECLINE, y=[1.0, -1.0] * 40), HIGH, other)
    assert found.sound is not None and len(found.sound) == 8 and found.sound[-1] == (680, 690)
    assert Evidence.model_validate_json(found.model_dump_json()) == found
    assert Evidence.model_validate({"rule": "load", "last_good_step": 20}).trusts(10)  # as earlier versions wrote it


@pytest.mark.parametrize("name", ["sharp_router-v3-seed12", "gat_explodes-v3-seed12", "stuck_policy-v3-seed11"])
def test_the_same_live_and_afterwards(name: str) -> None:
    """On recorded runs: a start lies before the values that crossed the threshold, and later reports change nothing."""
    history = History.read_csv(HISTORIES / f"{name}.csv.gz")
    verdict = judge(history, V3)
    assert verdict is not None
    found = verdict.evidence[0]
    assert found.sound and found.last_good_step is not None and found.sound[-1][1] < found.last_good_step
    assert judge(until(history, found.detection_step or 0), V3) == verdict
