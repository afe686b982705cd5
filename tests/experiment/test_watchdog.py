"""Watching a run in a real store: what the polls happen to see must not decide the verdict."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.ending import Ending
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import Spool
from pipeline.experiment.conclude import conclude
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Verdict
from pipeline.tracking import patience, tags
from pipeline.tracking.store import Store
from tests.conftest import small_config

UPDATES = (
    {"alpha_entropy": 1.38, "gat_attention_variance_raw": 0.01},  # α-entropy is "abnormal" here …
    {"alpha_entropy": 1.35, "gat_attention_variance_raw": 0.01},
    {"alpha_entropy": 1.10, "gat_attention_variance_raw": 0.01},  # … and no longer here
)


@pytest.mark.parametrize("seen", [(0, 1, 2), (0, 2), (1, 2), (2,)], ids=str)
def test_live_verdict_is_that_of_the_finished_run(seen: tuple[int, ...], tmp_path: Path) -> None:
    """Of two rules that fire at the same step one has calmed down when the only poll looks: it still comes first."""
    store, config, rules = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path), small_config(), RULE_SETS["seed"]
    parent = store.start_parent(config)
    run_id = store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    watch, live = Watchdog(store, run_id, rules), None
    for index, metrics in enumerate(UPDATES):
        store.log_metrics(run_id, metrics, step=64 * (index + 1))
        if index in seen and live is None:
            live = watch.poll()
    finished = judge(store.history(run_id, ["alpha_entropy", "gat_attention_variance_raw"]), rules)
    assert finished is not None and finished.name == "router_indecision"
    assert live == finished


@pytest.mark.parametrize("seen", [range(20), range(2, 20, 5), (11,), (19,)], ids=str)
def test_a_cause_is_found_whichever_polls_there_were(seen: Sequence[int], empty_store: Store) -> None:
    """The explosion is over, and was never the newest value of a poll, when the rule that it explains fires."""
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch, live = Watchdog(empty_store, run_id, RULE_SETS["v3"]), None
    for update in range(20):
        metrics = {"gat_smoothing": 0.5 if update < 3 else 0.99, "gradient_norm": 500.0 if update == 1 else 1.0}
        empty_store.log_metrics(run_id, metrics, step=64 * (update + 1))
        if update in seen and live is None:
            live = watch.poll()
    finished, _ = watch.final()
    assert finished is not None and finished.name == "gradient_explosion"
    assert [each.rule for each in finished.evidence] == ["gradient_level", "identical_nodes"]
    assert live == finished


@pytest.mark.parametrize(
    ("metric", "value", "alive"),
    [("loss", math.nan, False), ("loss", 1.0, False), ("system/cpu", 1.0, False), ("loss", 1.0, True)],
    ids=["one NaN", "one value", "MLflow's own thread", "values"],
)
def test_silence_is_told_by_what_the_training_logs(
    metric: str, value: float, alive: bool, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One value is no news for ever, not even NaN, which differs from itself; and MLflow's system metrics are none."""
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch = Watchdog(empty_store, run_id, ())
    empty_store.client.log_metric(run_id, metric, value, timestamp=1, step=0)
    watch.poll()
    goes_on = alive or metric.startswith("system/")
    for second in range(1, 9):
        now = float(second)
        if goes_on:
            empty_store.client.log_metric(run_id, metric, value, timestamp=1 + second, step=second)
        watch.poll()
        silence = watch.silence()
    assert (silence == 0) is alive and (alive or silence >= 7)
    assert watch.has_logged is (metric == "loss")


@pytest.mark.parametrize("logged", ["nothing", "to the store", "to the spool"])
def test_what_a_script_prints_is_a_sign_of_life_until_it_logs(
    logged: str, empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    run_id = empty_store.start_run(small_config(), "a script", {})
    folder = AttemptFolder(tmp_path / "attempt")
    folder.path.mkdir()
    folder.log.touch()
    watch = Watchdog(empty_store, run_id, (), Spool(folder.path))
    if logged == "to the store":
        empty_store.client.log_metric(run_id, "loss", 1.0, step=1)
    if logged == "to the spool":
        folder.metrics.write_text('{"time": 1, "step": 1, "metrics": {"loss": 1.0}}\n')
    for second in range(1, 9):
        now = float(second)
        with folder.log.open("a") as log:
            print("loading", second, file=log)
        watch.poll()
        silence = watch.silence()
    assert (silence == 0) is (logged == "nothing") and (logged == "nothing" or silence >= 6)


@pytest.mark.parametrize("name", ["episodes", "progress", "score_window", "loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_said_once_and_shown_nowhere(name: str, value: float, empty_store: Store) -> None:
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch = Watchdog(empty_store, run_id, ())
    for step in (1, 2):
        empty_store.client.log_metric(run_id, name, value, step=step)
        empty_store.client.log_metric(run_id, "x", 1.0, step=step)
        watch.poll()
    assert watch.latest == {"x": 1.0}
    (sentence,) = watch.news()
    assert name in sentence and "step 1" in sentence and watch.news() == []
    empty_store.client.log_metric(run_id, name, 1.0, step=3)
    watch.poll()
    assert watch.latest == {"x": 1.0, name: 1.0} and watch.last_step == 3


def test_steps_that_fall_are_no_silence(empty_store: Store) -> None:
    """The newest value of a metric is the one with the highest step: a poll sees nothing new of such a trainer."""
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch = Watchdog(empty_store, run_id, ())
    empty_store.client.log_metric(run_id, "loss", 1.0, timestamp=1000, step=10**12)
    watch.poll()
    assert not watch.has_spoken_unseen()
    empty_store.client.log_metric(run_id, "loss", 1.0, timestamp=2000, step=1)
    watch.poll()
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen()
    empty_store.client.log_metric(run_id, "loss", 1.0, timestamp=3000, step=0)
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen()
    empty_store.client.log_metric(run_id, "loss", 1.0, timestamp=500, step=2)  # the clock was set back
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen()


def test_nan_from_a_trainer_s_file_is_a_verdict(empty_store: Store, tmp_path: Path) -> None:
    """Through spool, store and history; live, and at the end."""
    run_id, spool = empty_store.start_run(small_config(), "a trainer", {}), Spool(tmp_path)
    with spool.path.open("a") as file:
        for step in range(1, 9):
            file.write(f'{{"time": {step}, "step": {step}, "metrics": {{"loss": {"null" if step > 3 else 1}}}}}\n')
    watch = Watchdog(empty_store, run_id, RULE_SETS["generic"], spool)
    live = watch.poll()
    assert live is not None and live.name == "numerical_instability" and live.evidence[0].onset_step == 4
    assert Verdict.model_validate_json(live.model_dump_json()) == live == watch.final()[0]
    empty_store.end_attempt(run_id, live)
    json.loads(empty_store.client.get_run(run_id).data.tags[tags.EVIDENCE], parse_constant=pytest.fail)


def test_what_is_certain_only_at_the_end(empty_store: Store) -> None:
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    for step, progress in enumerate((0.1, 0.2, 0.3)):
        empty_store.log_metrics(run_id, {"progress": progress}, step=step)
    watch = Watchdog(empty_store, run_id, RULE_SETS["generic"])
    assert watch.poll() is None and watch.final() == (None, [])
    verdict, _ = watch.final(ended=True)
    assert verdict is not None and verdict.name == "unfinished" and verdict.is_infrastructure_failure


EXPLODES = ThresholdRule(
    name="explodes",
    verdict="gradient_explosion",
    conditions=(Condition(metric="loss", above=1e6),),
    window=2,
    patience=2,
)


def test_a_rule_is_judged_live_where_the_steps_of_a_spool_start_over(empty_store: Store) -> None:
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    spool = Spool(empty_store.root / "attempt")
    spool.path.parent.mkdir()
    watch = Watchdog(empty_store, run_id, (EXPLODES,), spool)
    found = []
    for step, loss in ((1000, 0.5), (1001, 0.5), (1, 1e9), (2, 1e9)):
        with spool.path.open("a") as file:
            file.write(f'{{"time": {1000 + step}, "step": {step}, "metrics": {{"loss": {loss}}}}}\n')
        found.append(watch.poll())
    assert found[:3] == [None] * 3 and found[3] is not None and found[3].name == "gradient_explosion"


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside a metric whose steps rise"])
def test_a_rule_is_judged_live_where_the_steps_of_a_run_start_over(
    others: bool, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete histories are looked at now and then: seldom, and more seldom the longer nothing is found."""
    now = 0.0
    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch, looks = Watchdog(empty_store, run_id, (EXPLODES,)), 0
    points = empty_store.points

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal looks
        looks += 1
        return points(*given, **more)

    monkeypatch.setattr(empty_store, "points", counted)
    empty_store.client.log_metric(run_id, "loss", 0.5, timestamp=1000, step=1000)
    for second in range(1, 200):
        now = float(second)
        assert watch.poll() is None
        if others:
            empty_store.client.log_metric(run_id, "x", 0.5, timestamp=1000 + second, step=second)
    assert looks <= 5
    for step in (1, 2):
        empty_store.client.log_metric(run_id, "loss", 1e9, timestamp=2000 + step, step=step)
    found = None
    for second in range(200, 400):
        now = float(second)
        found = found or watch.poll()
    assert found is not None and found.name == "gradient_explosion"


def test_runs_nested_in_the_attempts_are_signs_of_life_and_end_with_it(empty_store: Store) -> None:
    client, told = empty_store.client, []
    empty_store.patience = patience.Patience(60, threading.Event(), told.append)
    run_id = empty_store.start_attempt(
        empty_store.start_parent(small_config()),
        small_config(),
        rung="v3",
        number=0,
        diff={},
        warm_start=None,
        reason="",
    )
    experiment = "0"  # MLflow's default one: there a trainer makes them that sets none

    def nested(parent: str, name: str) -> str:
        return str(client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent}).info.run_id)

    watch = Watchdog(empty_store, run_id, ())
    watch.poll()
    assert not watch.has_spoken_unseen() and not watch.has_logged
    fold = nested(run_id, "fold 1")
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen()
    inner = nested(fold, "inner")
    client.log_metric(inner, "loss", 1.0, step=1)
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen() and watch.has_logged
    client.log_metric(inner, "loss", 1.0, step=2)
    assert watch.has_spoken_unseen() and not watch.has_spoken_unseen()
    (sentence,) = watch.news()
    assert "inner" in sentence
    client.set_terminated(nested(run_id, "fold 0"))
    conclude(empty_store, run_id, Ending.now(Verdict(name="crash"), 1.0), (), ())
    assert [client.get_run(each).info.status for each in (fold, inner)] == ["FAILED", "FAILED"]
    assert len(told) == 1 and "fold 1, inner" in told[0]


def test_a_verdict_that_is_only_noted_is_told_once_and_is_the_final_one(empty_store: Store) -> None:
    """Later polls see what is new, and judge no more; another rule that fires later changes nothing."""
    loud, late = (
        ThresholdRule(name=f"{name}_{verdict}", verdict=verdict, conditions=(Condition(metric=name, above=1.0),))
        for name, verdict in (("loss", "gradient_explosion"), ("other", "expert_collapse"))
    )
    run_id = empty_store.start_run(small_config(), "a trainer", {})
    watch, found = Watchdog(empty_store, run_id, (loud, late)), []
    for step in range(1, 60):
        empty_store.client.log_metric(run_id, "loss", 5.0, step=step)
        empty_store.client.log_metric(run_id, "other", 5.0 if step > 30 else 0.0, step=step)
        if (verdict := watch.poll()) is not None:
            found.append(verdict)
            watch.note(verdict)
    (noted,) = found
    assert watch.latest["loss"] == 5.0 and watch.last_step == 59
    (sentence,) = (each for each in watch.news() if "goes on" in each)
    assert sentence.startswith("gradient_explosion: loss 5.00")
    final, _ = watch.final(ended=True)
    assert (
        final is not None and final.name == noted.name and final.evidence[0].onset_step == noted.evidence[0].onset_step
    )
