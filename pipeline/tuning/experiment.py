"""How a trial is evaluated: its experiment runs once for each seed, under the trial's own run in MLflow."""

from __future__ import annotations

import contextlib
import time
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
from pipeline.health.history import is_finite
from pipeline.launchers.base import Launcher
from pipeline.tracking import tags
from pipeline.tracking.store import Store
from pipeline.tuning.mlflow_runs import LINK, RUN, StudyStore, opening_tags
from pipeline.tuning.objective import REPORT_EVERY, measured, points
from pipeline.tuning.study import StudySection, value_of
from pipeline.tuning.trials import Outcome
from pipeline.tuning.validation import CONFIGURATION, SEED

ASKED = "asked to stop"
NO_TIME = "study.hours leave no time for the ladder"
_OF_VALIDATION = (CONFIGURATION, SEED)


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
        spare: whether there is time for a trial that has taken so many seconds to go down the ladder.

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
        spare: Callable[[float], bool] = lambda seconds: True,
    ) -> None:
        self._study, self._configure, self._seeds, self._stop = study, configure, seeds, stop
        self._spare = spare
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
        if self._kind != "trial" or self._study.ladder is False:  # a validated run that fails is lost in any case
            config = config.with_values({"ladder.rungs": config.ladder.rungs[:1], "ladder.remedies": 0})
        began = time.monotonic()
        values: list[float] = []
        errors: list[float | None] = []
        try:
            trial.set_user_attr(RUN, run_id)
            trial.set_user_attr(LINK, link)
            seeds = self._seeds(trial.params)
            for seed in seeds:
                if self._stop():
                    return Outcome("interrupted", ASKED)
                told = TrialReporter(
                    trial, self._store, self._study, values, len(seeds), self._stop, lambda: self._time_left(began)
                )
                seeded = config.with_values({"training.seed": seed, "tracking.publish": False})
                display = Display()
                callbacks = (display, told, Notifier(seeded.notify.command, display.terminal.complain))
                orchestrator = Orchestrator(seeded, self._store, self._launcher, callbacks, parent=run_id)
                end = orchestrator.run()
                more = f", seed {seed}" if len(seeds) > 1 else ""
                depth = sum(each.verdict.is_training_failure for each in orchestrator.attempts)
                if depth and not told.taken:  # what another rung reaches is not the objective of these coefficients
                    return Outcome(
                        "pruned", f"{_unhealthy(end, orchestrator)}{more}", tuple(values), tuple(errors), depth
                    )
                how = _how_it_ended(end, orchestrator, told) or _of_other_coefficients(orchestrator, trial.params)
                if how is not None:
                    ended, reason = how
                    return Outcome(ended, f"{reason}{more}", tuple(values), tuple(errors))  # type: ignore[arg-type]
                value, error = measured(self._store, self._study, orchestrator.attempts[-1])
                if value is not None and not is_finite(value):  # these coefficients make the training diverge
                    reason = f"study.objective.metric: {self._study.objective.metric} is {value:g} at the end"
                    return Outcome("pruned", reason, tuple(values), tuple(errors), 1)
                if value is None:
                    known = ", ".join(sorted(self._store.latest(orchestrator.attempts[-1].run_id))[:40])
                    reason = f"study.objective.metric: {self._study.objective.metric} was never logged; logged: {known}"
                    return Outcome("failed", reason, tuple(values), tuple(errors))
                values.append(value)
                errors.append(error)
        except UpdateFinishedTrialError:
            return Outcome("taken")
        return Outcome("complete", "trained to the end", tuple(values), tuple(errors))

    def _time_left(self, began: float) -> bool:
        """Whether a trial that began then, and whose training has failed, may go down the ladder."""
        return bool(self._study.ladder) or self._spare(time.monotonic() - began)


def _how_it_ended(end: End, orchestrator: Orchestrator, told: TrialReporter) -> tuple[str, str] | None:
    """(how, why) an experiment whose training never failed ended early; None if it trained to its end."""
    if end.outcome == "healthy":
        return None
    last = orchestrator.attempts[-1].verdict if orchestrator.attempts else None
    if end.outcome == "error":
        return "failed", end.reason
    if end.outcome == "exhausted" and last is not None:
        return "failed", f"{last.name}: {last.sentence}"
    if told.taken:
        return "taken", ""
    if told.pruned is not None:
        return "pruned", told.pruned
    if orchestrator.asked_to_stop is not None:
        return "interrupted", orchestrator.asked_to_stop
    return "pruned", end.reason  # budget.hours is spent; another try would spend it too


def _unhealthy(end: End, orchestrator: Orchestrator) -> str:
    """Why the training failed with the trial's coefficients, and what became of it on the ladder, in words."""
    attempts = orchestrator.attempts
    first = next(each.verdict for each in attempts if each.verdict.is_training_failure)
    why = f"{first.name}: {first.sentence}"
    if end.outcome == "healthy":
        return f"{why}; healthy with {attempts[-1].label}"
    if end.outcome != "exhausted":
        return f"{why}; {end.reason}"
    return why if len(attempts) == 1 else f"{why}; {len(attempts)} attempts failed"


def _of_other_coefficients(orchestrator: Orchestrator, params: dict[str, Any]) -> tuple[str, str] | None:
    """(how, why) a healthy attempt does not count, as it was not trained with the trial's coefficients; else None.

    A trainer that crashed or ran out of memory goes on with other settings.
    """
    first, last = orchestrator.attempts[0], orchestrator.attempts[-1]
    why = f"{first.verdict.name}: {first.verdict.sentence}; healthy with {last.label}"
    if (last.rung, last.remedy) != (first.rung, None):
        return "failed", why
    changed = [key for key in params if key not in _OF_VALIDATION and value_of(last.config, key) != params[key]]
    return ("failed", f"{why}, after {', '.join(changed)} changed") if changed else None


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
        goes_down: whether there is time for a trial whose training has failed to go down the ladder.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        store: Store,
        study: StudySection,
        before: list[float],
        seeds: int,
        asked: Callable[[], bool],
        goes_down: Callable[[], bool] = lambda: True,
    ) -> None:
        self._trial, self._store, self._objective = trial, store, study.objective
        self._before, self._seeds, self._asked = list(before), seeds, asked
        self._goes_down, self._failed = goes_down, False
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
        if self._failed:  # it goes down the ladder, and what it reaches there is not compared with other trials
            return
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
        if attempt.verdict.is_training_failure:
            self._failed = True
            if not self._goes_down():
                self._stop(NO_TIME)
        elif attempt.verdict.name == "healthy" and not self._failed:  # the last values arrived after the last poll
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
