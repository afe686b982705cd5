"""A worker's process, and its loop: ask for a trial, evaluate it, tell how it ended, until nothing is left.

`python -m pipeline.tuning.worker` reads its :class:`Assignment` as JSON from its standard input. A storage's URL may
hold a password, which must appear neither on the disk nor in the list of processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial
from pydantic import BaseModel, ConfigDict

from pipeline.config import ExperimentConfig
from pipeline.errors import (
    EXIT_EXHAUSTED,
    EXIT_HEALTHY,
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    InfrastructureFailure,
)
from pipeline.processes.signals import heeded
from pipeline.secrets import learn, learn_environment, without_passwords
from pipeline.tuning.storage import Heartbeat, open_storage, storage_reachable, turn
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import ENDED, REASON, Evaluate, Outcome, Trials
from pipeline.tuning.validation import CONFIGURATION, SEED, TUNED, distributions

log = logging.getLogger("worker")
GIVE_UP_AFTER = 3
"""Number of trials after which a study ends if all of them failed through no fault of their coefficients: then the
trainer or the metric is wrong."""
_WAIT_SECONDS = 1.0


class NothingButFailures(InfrastructureFailure):
    """Every trial failed, through no fault of its coefficients."""


class Assignment(BaseModel):
    """The work of one worker: trials of a study, or of its validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: StudyPlan
    study_name: str
    """Name in Optuna's storage."""
    url: str
    """URL of Optuna's storage."""
    parent: str
    """The study's run in MLflow."""
    kind: Literal["trial", "validation"]
    deadline: float
    """Seconds since the epoch; no trial begins after it."""
    best: dict[str, Any] = {}
    """For a validation: the coefficients that are validated."""

    def configure(self, params: dict[str, Any]) -> ExperimentConfig:
        """The configuration of a trial, without its seed.

        Raises:
            ValueError: the coefficients do not go together.
        """
        if self.kind == "trial":
            return self.plan.configured(params)
        return self.plan.tuned(self.best if params[CONFIGURATION] == TUNED else {})

    def seeds(self, params: dict[str, Any]) -> list[int]:
        """The seeds of a trial."""
        if self.kind == "validation":
            return [params[SEED]]
        first = self.plan.config.training.seed
        return list(range(first, first + self.plan.study.seeds))

    def open_trials(self) -> Trials:
        """The assigned trials, in their storage.

        Raises:
            InfrastructureFailure: the storage is out of reach.
        """
        study = self.plan.study
        if self.kind == "trial":
            budget, space, pruner = study.trials, study.distributions, study.make_pruner()
        else:  # every trial of a validation is queued, and none is pruned
            budget, space, pruner = 0, distributions(self.plan), NopPruner()
        with turn(self.url):
            storage = open_storage(self.url, study.heartbeat_seconds)
        with storage_reachable(self.url):
            loaded = optuna.load_study(study_name=self.study_name, storage=storage, pruner=pruner)
        return Trials(
            loaded,
            storage,
            budget=budget,
            distributions=space,
            sampler=study.make_sampler,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )


def work(
    trials: Trials,
    evaluate: Evaluate,
    deadline: float = float("inf"),
    settle: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Works until nothing is left to do, for other workers either; returns False if it was asked to stop.

    Args:
        trials: the trials to work on.
        evaluate: called with each trial.
        deadline: seconds since the epoch; no trial begins after it.
        settle: called when the states of trials may have changed.
        stop: whether this process has been asked to stop.

    Raises:
        InfrastructureFailure: the storage is out of reach.
        NothingButFailures: all trials failed, so more of them would be in vain.
    """
    while time.time() < deadline and not stop():
        trial = trials.ask()
        settle()
        if trial is None:
            if not trials.unfinished():
                return True
            time.sleep(_WAIT_SECONDS)  # another worker still has a trial; if that worker dies, the trial is free again
            continue
        log.info("trial %d: %s", trial.number, trial.params)
        with Heartbeat(trials.storage, trial._trial_id):
            try:
                outcome = evaluate(trial)
            except InfrastructureFailure as error:
                trials.tell(trial, Outcome("interrupted", str(error)))
                raise
            mine = trials.tell(trial, outcome)
        log.info("trial %d: %s – %s", trial.number, outcome.ended, outcome.reason)
        settle()
        if mine and outcome.ended == "interrupted":
            return False
        _give_up_if_all_fail(trials.all())
    return not stop()


def _give_up_if_all_fail(trials: list[FrozenTrial]) -> None:
    ended = [trial for trial in trials if ENDED in trial.user_attrs]
    if len(ended) >= GIVE_UP_AFTER and all(trial.user_attrs[ENDED] == "failed" for trial in ended):
        raise NothingButFailures(f"all {len(ended)} trials failed, the last one: {ended[-1].user_attrs[REASON]}")


def work_on(assigned: Assignment, stop: Callable[[], bool]) -> bool:
    """Works on an assignment, each trial as an experiment; returns False if it was asked to stop.

    Raises:
        InfrastructureFailure: the storage or the MLflow store is out of reach.
        NothingButFailures: see :func:`work`.
    """
    # MLflow takes seconds to load; a process that only needs the loop above does without it.
    from pipeline.launchers.choose import make_launcher
    from pipeline.tracking.access import tracking_root, tracking_uri
    from pipeline.tuning.experiment import Experiments
    from pipeline.tuning.mlflow_runs import StudyStore, reconcile

    with contextlib.closing(make_launcher(assigned.plan.config)) as launcher:
        if assigned.plan.config.trainer.command is None:
            launcher.warm_up()  # before there is a thread that a fork would lose
        plan, trials = assigned.plan, assigned.open_trials()
        store = StudyStore(tracking_uri(plan.config), tracking_root(plan.config))
        evaluate = Experiments(
            plan.study,
            assigned.configure,
            assigned.seeds,
            store,
            assigned.parent,
            assigned.kind,
            trials.storage.get_study_id_from_name(assigned.study_name),
            stop,
            launcher,
            lambda seconds: trials.spare(seconds, assigned.deadline),
        )

        def settle() -> None:
            reconcile(store, assigned.parent, assigned.study_name, trials.all())

        return work(trials, evaluate, assigned.deadline, settle, stop)


def main() -> int:
    learn_environment()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    assigned = Assignment.model_validate_json(sys.stdin.buffer.read())
    learn(assigned.url)
    asked_to_stop = threading.Event()
    with heeded(asked_to_stop):  # while an experiment runs, its orchestrator handles the signals
        try:
            return EXIT_HEALTHY if work_on(assigned, asked_to_stop.is_set) else EXIT_INTERRUPTED
        except InfrastructureFailure as error:
            print(f"worker: {without_passwords(str(error))}", flush=True)
            return EXIT_EXHAUSTED if isinstance(error, NothingButFailures) else EXIT_INFRASTRUCTURE


if __name__ == "__main__":
    sys.exit(main())
