"""A worker's process, and its loop: ask for a trial, evaluate it, tell how it ended, until nothing is left.

`python -m pipeline.tuning.worker` reads its :class:`Assignment` as JSON from its standard input (a storage's URL may
hold a password, which belongs on no disk and in no list of processes).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
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
from pipeline.tracking.access import tracking_root, tracking_uri
from pipeline.tuning.experiment import Experiments
from pipeline.tuning.mlflow_runs import StudyStore, reconcile
from pipeline.tuning.storage import Heartbeat, open_storage, storage_reachable, turn
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import ENDED, REASON, Evaluate, Outcome, Trials
from pipeline.tuning.validation import CONFIGURATION, SEED, TUNED, distributions

log = logging.getLogger("worker")
GIVE_UP_AFTER = 3
"""Trials that failed by no fault of their coefficients, and none that did not: the trainer or the metric is wrong."""
_WAIT_SECONDS = 1.0


class NothingButFailures(InfrastructureFailure):
    """Every trial failed, by no fault of its coefficients."""


class Stop:
    """Whether somebody has asked this process to end. While an experiment runs, its orchestrator has the signals."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signal: int = 0, _frame: object = None) -> None:
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def work(
    trials: Trials,
    evaluate: Evaluate,
    deadline: float = float("inf"),
    settle: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Works until nothing is left to be done, also by others; False if it was asked to stop.

    `settle` is called when the states of trials may have changed.

    Raises:
        InfrastructureFailure: the storage is out of reach.
        NothingButFailures: more trials would be in vain.
    """
    while time.time() < deadline and not stop():
        trial = trials.ask()
        settle()
        if trial is None:
            if not trials.unfinished():
                return True
            time.sleep(_WAIT_SECONDS)  # somebody else is still at it, and may be gone
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


class Assignment(BaseModel):
    """What one worker is to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: StudyPlan
    study_name: str
    """In Optuna's storage."""
    url: str
    parent: str
    """The study's run in MLflow."""
    kind: Literal["trial", "validation"]
    deadline: float
    """Seconds since the epoch; no trial is begun after it."""
    best: dict[str, Any] = {}
    """For a validation: the coefficients to be validated."""

    def configure(self, params: dict[str, Any]) -> ExperimentConfig:
        """The configuration of a trial, but for its seed. Raises ValueError."""
        if self.kind == "trial":
            return self.plan.configured(params)
        return self.plan.configured(self.best if params[CONFIGURATION] == TUNED else {})

    def seeds(self, params: dict[str, Any]) -> list[int]:
        if self.kind == "validation":
            return [params[SEED]]
        first = self.plan.config.training.seed
        return list(range(first, first + self.plan.study.seeds))


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stdout)
    log.setLevel(logging.INFO)
    assigned = Assignment.model_validate_json(sys.stdin.buffer.read())
    stop = Stop()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop.ask)
    plan, study = assigned.plan, assigned.plan.study
    try:
        with turn(assigned.url):
            storage = open_storage(assigned.url, study.heartbeat_seconds)
        with storage_reachable(assigned.url):
            pruner = study.make_pruner() if assigned.kind == "trial" else NopPruner()
            loaded = optuna.load_study(study_name=assigned.study_name, storage=storage, pruner=pruner)
        trials = Trials(
            loaded,
            storage,
            budget=study.trials if assigned.kind == "trial" else 0,  # a validation has only what was queued
            distributions=study.distributions if assigned.kind == "trial" else distributions(plan),
            sampler=study.make_sampler,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        store = StudyStore(tracking_uri(plan.config), tracking_root(plan.config))
        evaluate = Experiments(
            study,
            assigned.configure,
            assigned.seeds,
            store,
            assigned.parent,
            assigned.kind,
            storage.get_study_id_from_name(assigned.study_name),
            stop,
        )

        def settle() -> None:
            reconcile(store, assigned.parent, assigned.study_name, trials.all())

        return EXIT_HEALTHY if work(trials, evaluate, assigned.deadline, settle, stop) else EXIT_INTERRUPTED
    except InfrastructureFailure as error:
        print(f"worker: {error}", flush=True)
        return EXIT_EXHAUSTED if isinstance(error, NothingButFailures) else EXIT_INFRASTRUCTURE


if __name__ == "__main__":
    sys.exit(main())
