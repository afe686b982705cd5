"""The fault suite is sound, and what is measured on it means what it says."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest

from benchmarks.detection import DETECTORS, Recording, examine, summary
from benchmarks.recovery import FOLDER, STRATEGIES, applies, configuration, full_cost, order_matters, settles_mildly
from benchmarks.suite import Fault, load_suite
from fallbacks.ladder import BUILT_IN
from pipeline.config import RUNGS
from pipeline.health.history import History
from pipeline.health.verdict import VerdictName

SUITE = load_suite()
KNOWN = {name for part in get_args(VerdictName) for name in get_args(part)}
FAMILIES = {
    "gradient explosion", "NaN", "expert collapse", "GAT over-smoothing", "reward plateau", "stuck policy",
    "crash", "hang", "out of memory",
}  # fmt: skip


@pytest.mark.parametrize("fault", [each for each in SUITE.values() if each.name != "base"], ids=lambda each: each.name)
def test_fault_is_sound(fault: Fault) -> None:
    assert fault.family in FAMILIES and fault.verdict in KNOWN and fault.cause
    assert fault.config() != SUITE["base"].config()  # it is caused through configuration
    assert fault.cured_by.keys() <= set(RUNGS)
    if fault.of_training:
        assert 1 <= fault.injected_at <= 20
    for rung in fault.cured_by:
        if fault.of_training:
            addresses = BUILT_IN[rung].addresses
            assert addresses is None or fault.verdict in addresses, rung  # a guided ladder finds the cure


def test_every_family_is_there() -> None:
    assert len(SUITE) >= 15
    assert {fault.family for fault in SUITE.values()} == FAMILIES | {"healthy"}


def recording(values: list[float], at_update: int | None = None) -> Recording:
    events = {} if at_update is None else {"faults": [{"kind": "nan_gradient", "at_update": at_update}]}
    fault = Fault("x", "expert collapse", "", "expert_collapse", {}, events)
    steps = range(100, 100 * len(values) + 1, 100)
    series = {
        "expert_usage_excess": values,
        "update": np.arange(len(values)) + 1.0,
        "time/collect": [1.0] * len(values),
        "time/update": [0.5] * len(values),
    }
    history = History({name: zip(steps, map(float, each), strict=True) for name, each in series.items()})
    return Recording(fault, "v3", 11, history)


@pytest.mark.parametrize(("at_update", "delay"), [(None, 18), (1, 18), (11, 8)])
def test_delay_is_counted_from_the_injection(at_update: int | None, delay: int) -> None:
    found = examine(recording([0.1] * 10 + [0.9] * 20, at_update), DETECTORS["v3"])  # the 8th of 10 in a row
    assert found["right"] and found["delay_updates"] == delay
    assert found["delay_seconds"] == pytest.approx(delay * 1.5)


def test_a_run_in_which_nothing_shows_is_missed_not_left_out() -> None:
    found = summary([recording([0.1] * 30)], [recording([0.1] * 30)], DETECTORS["v3"])
    assert found["faulty_runs"] == 1 and found["recall"][0] == 0 and found["faults"][0]["delay_updates"] is None


@pytest.mark.parametrize(("step", "seen"), [(100, False), (1000, False), (1100, True)])
def test_an_alarm_before_the_injection_is_no_recall(step: int, seen: bool) -> None:
    found = examine(recording([0.1] * 10 + [0.9] * 20, 11), lambda history: ("expert_collapse", step))
    assert found["seen"] is found["right"] is seen


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "oracle"])
def test_strategies_have_the_same_number_of_attempts(strategy: str) -> None:
    config = configuration(SUITE["sharp_router"], strategy, seed=21)
    more = config.ladder.remedies if strategy == "remedies_alone" else 0
    assert len(config.ladder.rungs) + more == len(RUNGS) and config.ladder.rungs[0] == "v3"
    assert (config.ladder.remedies > 0) == strategy.startswith("remedies")


def test_an_oracle_trains_the_mildest_cure_from_the_beginning_where_there_is_one() -> None:
    config = configuration(SUITE["sharp_router"], "oracle", seed=21)
    assert config.ladder.rungs == ("softmax_only",) and config.ladder.remedies == 0
    assert applies("oracle", SUITE["sharp_router"]) and not applies("oracle", SUITE["gat_too_deep"])


def test_without_a_watchdog_every_failed_attempt_runs_to_its_end() -> None:
    result = {"verdicts": ["expert_collapse", "crash", "healthy"], "steps": [10, 20, 70]}
    assert full_cost(result, whole=100) == 270


@pytest.mark.parametrize("rung", ["v3", "softmax_only", "seed_1021"])
def test_the_mildest_cure_is_the_first_rung_that_cures_or_one_above(rung: str) -> None:
    assert settles_mildly(SUITE["sharp_router"], rung)


@pytest.mark.parametrize("rung", ["two_experts", "v2_router_gat", None])
def test_no_mild_cure_is_further_down_or_none_at_all(rung: str | None) -> None:
    assert not settles_mildly(SUITE["sharp_router"], rung)


@pytest.mark.parametrize(("fault", "matters"), [("sharp_router", True), ("nan_gradients", True), ("no_balance", False)])
def test_order_matters_where_a_rung_above_the_last_cures(fault: str, matters: bool) -> None:
    assert order_matters(SUITE[fault]) == matters


def test_each_fault_and_seed_draws_an_order_of_its_own() -> None:
    def order(fault: str, seed: int) -> str:
        return str(configuration(SUITE[fault], "random_order", seed).ladder.rungs)

    assert len({order(fault, seed) for fault in SUITE for seed in (21, 22)}) > 12
    assert order("sharp_router", 21) == order("sharp_router", 21)


def test_a_random_order_is_the_one_with_which_the_results_were_made() -> None:
    """In another process, too."""
    paths = list(FOLDER.glob("*-seed27.json"))
    assert len(paths) == 14
    for path in paths:
        result = json.loads(path.read_text())
        tried = result["strategies"]["random_order"]["rungs"]
        rungs = configuration(SUITE[result["fault"]], "random_order", 27).ladder.rungs
        assert list(rungs[: len(tried)]) == tried
