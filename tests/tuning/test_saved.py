"""A trial whose training fails: when it goes down the ladder, and what it counts as."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from fallbacks.ladder import End
from pipeline.attempt.record import Attempt
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from pipeline.tuning import experiment
from pipeline.tuning.experiment import NO_TIME, Experiments, TrialReporter
from pipeline.tuning.study import StudySection
from pipeline.tuning.trials import Outcome, Trials

RATE = "training.learning_rate"
SECTION = StudySection.model_validate({"space": {RATE: {"float": [1e-5, 1e-1]}}})
CONFIG = ExperimentConfig()


def attempt(verdict: str, number: int = 0, rung: str = "v3", remedy: str | None = None, **changes: Any) -> Attempt:
    evidence = () if verdict == "healthy" else (Evidence(rule="r", detail={"reason": "so it was"}),)
    config = CONFIG.with_values(changes)
    return Attempt(number, rung, config, f"run {number}", Verdict(name=verdict, evidence=evidence), remedy=remedy)


def outcome(monkeypatch: pytest.MonkeyPatch, end: End, attempts: list[Attempt], **study: Any) -> Outcome:
    """Of a trial whose experiment ends so, after these attempts."""
    orchestrator = SimpleNamespace(attempts=attempts, asked_to_stop=None, run=lambda: end)
    monkeypatch.setattr(experiment, "Orchestrator", lambda *_, **__: orchestrator)
    monkeypatch.setattr(experiment, "measured", lambda *_: (3.0, None))
    store: Any = SimpleNamespace(start_trial=lambda *_: ("run", "link"))
    launcher: Any = None
    section = SECTION.model_copy(update=study)
    evaluate = Experiments(
        section, CONFIG.with_values, lambda params: [1], store, "parent", "trial", 0, lambda: False, launcher
    )
    made = optuna.create_study()
    made.enqueue_trial({RATE: 1e-4})
    return evaluate(made.ask(SECTION.distributions))


def test_what_another_rung_reaches_is_no_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial proposes its coefficients for V3. With a remedy or on another rung they were others."""
    failed = attempt("gradient_explosion")
    healthy = End("healthy", "")
    for saved in (attempt("healthy", 1, remedy="smaller_steps"), attempt("healthy", 1, "softmax_only")):
        found = outcome(monkeypatch, healthy, [failed, saved])
        assert (found.ended, found.values, found.depth) == ("pruned", (), 1)
        assert found.reason == f"gradient_explosion: {failed.verdict.sentence}; healthy with {saved.label}"
    several = [failed, attempt("expert_collapse", 1, "freeze_gat"), attempt("healthy", 2, "softmax_only")]
    assert outcome(monkeypatch, healthy, several).depth == 2
    assert outcome(monkeypatch, End("exhausted", ""), several[:2]).reason.endswith("; 2 attempts failed")


def test_what_is_known_to_fail_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the ladder ends after it: interrupted, out of time, or with a crash on another rung."""
    failed, crashed = attempt("gradient_explosion"), attempt("crash", 1, "freeze_gat")
    for end, attempts in (
        (End("interrupted", NO_TIME), [failed]),
        (End("interrupted", "budget.hours=1 spent"), [failed, attempt("interrupted", 1, "freeze_gat")]),
        (End("exhausted", "no rung is left"), [failed, crashed]),
        (End("error", "it cannot start"), [failed, crashed]),
    ):
        found = outcome(monkeypatch, end, attempts)
        assert (found.ended, found.depth) == ("pruned", 1), end


def test_crash_that_only_another_rung_survives_is_no_fault_of_the_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = End("healthy", "")
    again = outcome(monkeypatch, healthy, [attempt("crash"), attempt("healthy", 1, **{RATE: 1e-4})])
    assert (again.ended, again.values, again.depth) == ("complete", (3.0,), 0)
    below = outcome(monkeypatch, healthy, [attempt("crash"), attempt("healthy", 1, "freeze_gat")])
    assert below.ended == "failed" and below.reason.endswith("; healthy with freeze_gat")
    smaller = outcome(monkeypatch, healthy, [attempt("out_of_memory"), attempt("healthy", 1, **{RATE: 5e-5})])
    assert smaller.ended == "failed" and smaller.reason.endswith(f"after {RATE} changed")


@pytest.mark.parametrize("goes_down", [True, False])
def test_nothing_is_compared_with_other_trials_after_a_failure(goes_down: bool, tmp_path: Path) -> None:
    store, trial, stopped = Store(default_uri(tmp_path), tmp_path), optuna.create_study().ask(), []
    reporter = TrialReporter(trial, store, SECTION, [], 1, lambda: False, lambda: goes_down)
    reporter.experiment_started(SimpleNamespace(stop=stopped.append))  # type: ignore[arg-type]
    reporter.attempt_ended(attempt("gradient_explosion"), None)  # type: ignore[arg-type]
    assert stopped == ([] if goes_down else [NO_TIME])
    reporter.progress({"progress": 1.0, "score_window": 5.0})  # reads no history
    reporter.attempt_ended(attempt("healthy", 1, "softmax_only"), None)  # type: ignore[arg-type]
    assert not trial.study.get_trials()[0].intermediate_values


def test_ladder_of_a_trial_leaves_the_missing_trials_their_time() -> None:
    """Ten trials of 100 s: three are done, this one has taken 40 s, six are missing; the longest took 150 s."""

    def lasted(seconds: float) -> FrozenTrial:
        trial = optuna.trial.create_trial(value=1.0)
        trial.datetime_start = datetime(2026, 1, 1)
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
        return trial

    study = optuna.create_study()
    study.add_trials([lasted(seconds) for seconds in (110, 100, 150)])
    study.ask()
    storage: Any = None
    trials = Trials(study, storage, budget=10, distributions={}, sampler=SECTION.make_sampler, worker="w")
    needed = 6 * (110 + 100 + 150 + 40) / 4 + 150
    assert trials.spare(40, time.time() + needed + 5) and not trials.spare(40, time.time() + needed - 5)
    study.ask()  # two at a time, and five are missing
    needed = 5 * 100 / 2 + 150
    assert trials.spare(40, time.time() + needed + 5) and not trials.spare(40, time.time() + needed - 5)
    assert TrialState.RUNNING in {trial.state for trial in study.trials}
