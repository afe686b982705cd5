"""Watching a run in a real store: what the polls happen to see must not decide the verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import Spool
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import RULE_SETS
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
