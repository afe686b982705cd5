"""Numbers that a trainer logs under names that this program knows: none of them ends a reader, whatever it is."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Metric
from rich.console import Console

from fallbacks.ladder import Ladder
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.callbacks.callback import ExperimentEnded, ExperimentStarted
from pipeline.callbacks.display import Display
from pipeline.callbacks.terminal import Terminal
from pipeline.commands.diagnose import cases_of_run, report
from pipeline.commands.status import status
from pipeline.compare.command import compare
from pipeline.compare.from_store import read
from pipeline.config import ExperimentConfig
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.readings import RANGES, doubt, interval, used, written
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.store import Store
from pipeline.tuning.objective import measured, points, windowed_error
from pipeline.tuning.study import StudySection

NAMES = (
    "episodes", "progress", "score", "score_window", "best/score_window", "steps_per_second", "random/score",
    "random/score_low", "random/score_high", "cost/seconds", "update", "phase", "memory_mb", "routing/else/general",
    "situation/else", "expert_usage/general", "sparse_share", "gradient_norm", "alpha_entropy_ratio", "time/collect",
)  # fmt: skip
VALUES = (math.nan, math.inf, -math.inf, 1.797e308, -1.0, 0.5, 5.0, 7.0, 1e30, 1e299, 5e-324)
STEPS = (-5, 0, 3, 2, 2**62)
"""Negative, falling, huge."""


def logged(store: Store, name: str, *, alone: bool) -> tuple[str, str]:
    """An experiment that is running, whose attempt has logged a metric with every odd value: parent and attempt."""
    values = {
        "trainer.command": ["train"],
        "ladder.rungs": ["v3"],
        "ladder.remedies": 0,
        "experiment.name": f"{name} {alone}",
    }
    config = ExperimentConfig().with_values(values)
    parent = store.start_parent(config)
    run = store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    metrics = [
        Metric(name, value, 1000 * number, STEPS[number % len(STEPS)] + number) for number, value in enumerate(VALUES)
    ]
    if not alone:
        metrics += [
            Metric(other, 1.0, 1000 * number, STEPS[number % len(STEPS)] + number)
            for other in NAMES
            for number in range(len(VALUES))
            if other != name
        ]
    store.client.log_batch(run, metrics=metrics)
    return parent, run


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among others"])
@pytest.mark.parametrize("name", NAMES)
def test_no_reader_ends_at_an_odd_number(name: str, alone: bool, empty_store: Store, tmp_path: Path) -> None:
    """Tables, page, diagnosis, the lines on a terminal, a study: each metric by itself, without its companions, too."""
    parent, run = logged(empty_store, name, alone=alone)
    console = Console(file=io.StringIO(), width=200)
    status(empty_store, console)
    compare(empty_store, [parent], tmp_path, console)
    root = f"tracking.root={empty_store.root}"
    (case,) = cases_of_run(run, [root, f"tracking.uri={empty_store.uri}"])
    report(case, console, tmp_path)
    watch = Watchdog(empty_store, run, RULE_SETS["v3"])
    watch.poll()
    watch.final()
    assert all(doubt(each, value) is None for each, value in watch.latest.items())
    study = StudySection.model_validate(
        {"space": {"training.gamma": {"float": [0.9, 0.99]}}, "objective": {"metric": name}}
    )
    config = ExperimentConfig()
    measured(empty_store, study, Attempt(0, "v3", config, run, Verdict(name="healthy")))
    history = empty_store.history(run, NAMES)
    points(history, name, 0)
    windowed_error(history, 100)
    judge(history, RULE_SETS["seed"])
    empty_store.end_attempt(run, Verdict(name="healthy"))
    empty_store.end_parent(parent, "healthy", "v3", None, "")
    compare(empty_store, [parent], tmp_path, console)
    read(empty_store, [parent]).rungs()


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_the_display_takes_what_is_used(name: str, value: float, terminal: bool, tmp_path: Path) -> None:
    latest = used({name: value})
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal)
    display = Display(Terminal(console))
    config = ExperimentConfig()
    display.experiment_started(
        ExperimentStarted(config, "parent", "sqlite:///x", tmp_path, nested=False, stop=lambda _: None)
    )
    display.attempt_started(Ladder(config).first(), 0, "run")
    display.progress({"progress": 0.0})
    display.progress(latest)
    attempt = Attempt(0, "v3", config, "run", Verdict(name="healthy"))
    summary = AttemptSummary.of(attempt, latest, -1, 1.0)
    display.attempt_ended(attempt, summary)
    display.experiment_ended(
        ExperimentEnded("healthy", "x", "v3", (summary,), {}, latest or None, stopped=False, resume=None)
    )
    display.close()


@pytest.mark.parametrize("name", RANGES)
def test_what_a_name_does_not_allow_is_told_once(name: str, empty_store: Store) -> None:
    run = empty_store.start_run(ExperimentConfig(), "a trainer", {})
    watch = Watchdog(empty_store, run, ())
    for step in (1, 2):
        empty_store.client.log_metric(run, name, -1.0, step=step)
        watch.poll()
    (sentence,) = watch.news()
    assert name in sentence and "-1" in sentence and "allowed" in sentence and name not in watch.latest


def test_an_infinite_value_is_beyond_every_bound_and_nan_beyond_none() -> None:
    rule = next(each for each in RULE_SETS["v3"] if each.name == "gradient_level")
    assert judge(History({"gradient_norm": [(step, math.inf) for step in range(5)]}), [rule]) is not None
    assert judge(History({"gradient_norm": [(step, 1.797e308) for step in range(5)]}), [rule]) is not None
    assert judge(History({"gradient_norm": [(step, math.nan) for step in range(5)]}), [rule]) is None


def test_nan_between_two_violations_ends_no_incident() -> None:
    rule = next(each for each in RULE_SETS["v3"] if each.name == "gradient_level")
    values = [200.0, math.nan, math.nan, math.nan, 200.0]
    found = judge(History({"gradient_norm": list(enumerate(values))}), [rule])
    assert found is not None and found.evidence[0].onset_step == 0


def test_nan_in_a_score_is_no_plateau() -> None:
    plateau = [each for each in RULE_SETS["v3"] if each.name == "flat_score"]
    episodes = [(step, 4.0 * step) for step in range(1000)]
    for odd in (math.nan, math.inf, 1e299):
        score = [(step, odd if step % 3 else float(step)) for step in range(1000)]
        series = {"score": score, "episodes": episodes, "phase": [(step, 0.0) for step in range(1000)]}
        assert judge(History(series), plateau) is None


def test_episodes_that_are_counted_anew_end_no_judgement() -> None:
    plateau = [each for each in RULE_SETS["v3"] if each.name == "reward_plateau"]
    counts = [float(10 * (step % 150)) for step in range(900)]
    series = {
        "score": [(step, 1.0) for step in range(900)],
        "episodes": list(enumerate(counts)),
        "phase": [(step, 0.0) for step in range(900)],
    }
    judge(History(series), plateau)


def test_evidence_with_values_that_are_not_finite_can_be_read_again() -> None:
    evidence = Evidence(rule="x", metric="loss", values=(1.0, math.inf, math.nan), detail={"other": [math.inf]})
    again = Verdict.model_validate_json(Verdict(name="gradient_explosion", evidence=(evidence,)).model_dump_json())
    assert again.evidence[0].values[1] == math.inf and again.evidence[0].detail["other"] == [math.inf]
    assert np.isnan(again.evidence[0].values[2]) and "inf" in again.evidence[0].sentence() + f"{math.inf}"


def test_baselines_without_their_bounds() -> None:
    assert interval({"random/score": 8.0}, "random/score") == "8.0"
    assert interval({"random/score": 8.0, "random/score_low": 7.0}, "random/score") == "8.0"
    full = {"random/score": 8.0, "random/score_low": 7.0, "random/score_high": 9.0}
    assert interval(full, "random/score") == "8.0 [7.0, 9.0]" and interval({}, "random/score") is None
    assert len(written(1e299)) < 12


def test_an_objective_that_diverges_is_not_its_last_finite_value(empty_store: Store) -> None:
    run = empty_store.start_run(ExperimentConfig(), "a trainer", {})
    for step, value in enumerate((1.0, 0.5, math.nan)):
        empty_store.client.log_metric(run, "loss", value, step=step)
    study: Any = SimpleNamespace(objective=SimpleNamespace(metric="loss", average_over=0.0))
    value, _ = measured(empty_store, study, Attempt(0, "v3", ExperimentConfig(), run, Verdict(name="healthy")))
    assert value is not None and math.isnan(value)
