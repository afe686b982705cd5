"""How a trial is evaluated: its experiment runs once for each seed, under the trial's own run in MLflow."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from sqlalchemy.exc import SQLAlchemyError

from fallbacks.ladder import End, Plan
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.callbacks.callback import Callback, ExperimentStarted
from pipeline.callbacks.display import Display
from pipeline.callbacks.notify import Notifier
from pipeline.config import ExperimentConfig
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.health.history import History, is_finite
from pipeline.launchers.base import Launcher
from pipeline.tracking import tags
from pipeline.tracking.store import Store
from pipeline.tuning.mlflow_runs import LINK, RUN, StudyStore, opening_tags
from pipeline.tuning.study import StudySection
from pipeline.tuning.trials import Outcome

REPORT_EVERY = 5
"""Per cent of a trial between two intermediate values. All trials report at the same points, whenever they are polled,
because a pruner compares values at equal steps."""
ASKED = "asked to stop"


class Configure(Protocol):
    """A function from a trial's parameters to its configuration."""

    def __call__(self, params: dict[str, Any]) -> ExperimentConfig:
        """The configuration of a trial, without its seed.

        Raises:
            ValueError: the coefficients do not go together.
        """


class Experiments:
    """Evaluates trials by running their experiments.

    Args:
        study: how the study evaluates a trial.
        configure: gives the configuration of a trial.
        seeds: gives the seeds of a trial from its parameters.
        store: the MLflow store.
        parent: the study's run in MLflow.
        kind: kind of the trial's run, `trial` or `validation`.
        study_id: id of the study in Optuna's storage, for links to its dashboard.
        stop: whether this process has been asked to stop.
        launcher: starts the trainers.

    Raises:
        InfrastructureFailure: the MLflow store is out of reach, or the trainer cannot be started.
    """

    def __init__(
        self,
        study: StudySection,
        configure: Configure,
        seeds: Callable[[dict[str, Any]], list[int]],
        store: StudyStore,
        parent: str,
        kind: str,
        study_id: int,
        stop: Callable[[], bool],
        launcher: Launcher,
    ) -> None:
        self._study, self._configure, self._seeds, self._stop = study, configure, seeds, stop
        self._store, self._parent, self._kind, self._study_id = store, parent, kind, study_id
        self._launcher = launcher

    def __call__(self, trial: optuna.Trial) -> Outcome:
        """Runs the trial's experiments; returns how the trial ended and the objective of each seed."""
        try:
            config = self._configure(trial.params)
        except ValueError as refused:
            return Outcome("pruned", f"not a valid configuration: {' '.join(str(refused).split())}", depth=1)
        name = f"{self._kind} {trial.number}"
        said = opening_tags(self._study_id, trial.study.study_name, trial.number, trial.params)
        run_id, link = self._store.start_trial(self._parent, config, name, self._kind, said)
        if not self._study.ladder:
            config = config.with_values({"ladder.rungs": config.ladder.rungs[:1], "ladder.remedies": 0})
        values: list[float] = []
        errors: list[float | None] = []
        depth = 0
        try:
            trial.set_user_attr(RUN, run_id)
            trial.set_user_attr(LINK, link)
            seeds = self._seeds(trial.params)
            for seed in seeds:
                if self._stop():
                    return Outcome("interrupted", ASKED)
                told = TrialReporter(trial, self._store, self._study, values, len(seeds), self._stop)
                seeded = config.with_values({"training.seed": seed, "tracking.publish": False})
                display = Display()
                callbacks = (display, told, Notifier(seeded.notify.command, display.terminal.complain))
                orchestrator = Orchestrator(seeded, self._store, self._launcher, callbacks, parent=run_id)
                end = orchestrator.run()
                depth = max(depth, sum(each.verdict.is_training_failure for each in orchestrator.attempts))
                how = self._how_it_ended(end, orchestrator, told)
                if how is not None:
                    ended, reason = how
                    more = f", seed {seed}" if len(seeds) > 1 else ""
                    return Outcome(ended, f"{reason}{more}", tuple(values), tuple(errors), depth)  # type: ignore[arg-type]
                value, error = measured(self._store, self._study, orchestrator.attempts[-1])
                if value is not None and not is_finite(value):  # these coefficients make the training diverge
                    reason = f"study.objective.metric: {self._study.objective.metric} is {value:g} at the end"
                    return Outcome("pruned", reason, tuple(values), tuple(errors), max(1, depth))
                if value is None:
                    known = ", ".join(sorted(self._store.latest(orchestrator.attempts[-1].run_id))[:40])
                    reason = f"study.objective.metric: {self._study.objective.metric} was never logged; logged: {known}"
                    return Outcome("failed", reason, tuple(values), tuple(errors), depth)
                values.append(value)
                errors.append(error)
        except UpdateFinishedTrialError:
            return Outcome("taken")
        reason = "trained to the end" if not depth else f"needed the ladder: {depth} attempts failed"
        return Outcome("complete", reason, tuple(values), tuple(errors), depth)

    def _how_it_ended(self, end: End, orchestrator: Orchestrator, told: TrialReporter) -> tuple[str, str] | None:
        """(how, why) the experiment ended early; None if it trained to its end."""
        if end.outcome == "healthy":
            return None
        last = orchestrator.attempts[-1].verdict if orchestrator.attempts else None
        if end.outcome == "error":
            return "failed", end.reason
        if end.outcome == "exhausted" and last is not None:
            if last.is_training_failure:
                return "pruned", f"{last.name}: {last.sentence}"
            return "failed", f"{last.name}: {last.sentence}"
        if told.taken:
            return "taken", ""
        if told.pruned is not None:
            return "pruned", told.pruned
        if orchestrator.asked_to_stop is not None:
            return "interrupted", orchestrator.asked_to_stop
        return "pruned", end.reason  # budget.hours is spent; another try would spend it too


def measured(store: Store, study: StudySection, attempt: Attempt) -> tuple[float | None, float | None]:
    """The objective at the end of an attempt, which may not be finite, and its standard error within the run.

    Each is None if it is unknown.
    """
    metric, share = study.objective.metric, study.objective.average_over
    history = store.history(attempt.run_id, [metric, "score", "episodes"])
    steps, values = history.series(metric)
    if not len(values):
        return None, None
    inside = last_values(steps, values, steps[-1], share)
    value = float(inside.mean())
    if not is_finite(value):
        return value, None
    if share:
        return value, float(inside.std(ddof=1)) / math.sqrt(len(inside)) if len(inside) > 1 else None
    window = attempt.config.training.score_window
    return value, windowed_error(history, window) if metric == "score_window" else None


def last_values(steps: np.ndarray, values: np.ndarray, until: float, share: float) -> np.ndarray:
    """The values that were reported in the last `share` of the steps up to `until`; the last one at least.

    Args:
        steps: (n,), ascending.
        values: (n,).
        until: step up to which values count; one of them does at least.
        share: between 0 and 1.
    """
    end = int(np.searchsorted(steps, until, side="right"))
    begin = min(int(np.searchsorted(steps, (1 - share) * until, side="right")), end - 1)
    return values[begin:end]


def windowed_error(history: History, window: int) -> float | None:
    """Standard error of the mean score over the last `window` episodes; None if fewer than two updates are in it.

    It is computed from the means of the updates, weighted by the episodes that ended in each. It says how well this
    run's score is known. It does not say how much the score of another seed would differ.
    """
    _, both = history.aligned(["score", "episodes"])
    score, episodes = both["score"], both["episodes"]
    if not len(score):
        return None
    inside = episodes > episodes[-1] - window
    weight = np.maximum(np.diff(episodes, prepend=0.0), 0.0)[inside]
    score = score[inside]
    count = int(np.count_nonzero(weight))
    if count < 2:
        return None
    mean = np.average(score, weights=weight)
    spread = float((weight**2 * (score - mean) ** 2).sum())
    return math.sqrt(spread * count / (count - 1)) / float(weight.sum())


class TrialReporter(Callback):
    """Reports a trial's intermediate values to Optuna, and stops the experiment if Optuna prunes the trial.

    The values come from the same histories that the watchdog reads. A trial is not pruned early if its trainer does
    not log `progress` (0 – 1).

    Args:
        trial: the trial that is evaluated.
        store: the MLflow store.
        study: names the objective's metric.
        before: the objective of the seeds that are done.
        seeds: number of seeds of the trial.
        asked: whether this process has been asked to stop.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        store: Store,
        study: StudySection,
        before: list[float],
        seeds: int,
        asked: Callable[[], bool],
    ) -> None:
        self._trial, self._store, self._objective = trial, store, study.objective
        self._before, self._seeds, self._asked = list(before), seeds, asked
        self._run_id = ""
        self._reported = 0
        self.pruned: str | None = None
        self.taken = False

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._stop = event.stop

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self._run_id = run_id
        self._store.set_tags(run_id, {tags.SEED: str(plan.config.training.seed)})

    def progress(self, latest: Mapping[str, float]) -> None:
        if self._asked():  # a signal may come after the loop's last check and before the orchestrator handles signals
            self._stop(ASKED)
        due = 100 * latest.get("progress", 0.0) >= self._reported + REPORT_EVERY and self._objective.metric in latest
        if not due or self.pruned is not None:
            return
        try:
            self._report()
            if self._trial.should_prune():
                self.pruned = f"pruned at {self._reported} %: unpromising"
                self._stop(self.pruned)
        except UpdateFinishedTrialError:
            self.taken = True
            self._stop("given to another worker")
        except (StorageInternalError, SQLAlchemyError):
            pass  # the storage is away for a moment; the next poll reports what is missing

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        if attempt.verdict.name == "healthy":  # the last values arrived after the last poll
            with contextlib.suppress(UpdateFinishedTrialError, StorageInternalError, SQLAlchemyError):
                self._report()  # a failure shows again when the trial is told its outcome

    def _report(self) -> None:
        # `progress` is read first, so the metric that is read after it has at least the same updates.
        metric, share = self._objective.metric, self._objective.average_over
        history = self._store.history(self._run_id, ["progress", metric])
        for percent, value in points(history, metric, self._reported, share):
            seed, done = len(self._before), self._before
            self._trial.report(float(np.mean([*done, value])), round((100 * seed + percent) / self._seeds))
            self._reported = percent


def points(history: History, metric: str, reported: int, share: float = 0.0) -> list[tuple[int, float]]:
    """(per cent of the run, the objective there) at each point that has been reached and is not reported yet."""
    at, progress = history.series("progress")
    steps, values = history.series(metric)
    found = []
    for percent in range(reported + REPORT_EVERY, 101, REPORT_EVERY):
        reached = np.flatnonzero(progress >= percent / 100 - 1e-9)
        if not len(reached):
            break
        until = at[reached[0]]
        if len(steps) and steps[0] <= until:
            found.append((percent, float(last_values(steps, values, until, share).mean())))
    return found
