"""A worker's loop: ask for a trial, evaluate it, tell how it ended, until nothing is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from optuna.trial import FrozenTrial

from pipeline.errors import InfrastructureFailure
from pipeline.tuning.storage import Heartbeat
from pipeline.tuning.trials import ENDED, REASON, Evaluate, Outcome, Trials

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
