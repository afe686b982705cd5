"""Ask, tell, recover: every trial of a study is worked on exactly once, by any number of workers, whoever is killed.

The storage is the only thing that workers share. What changes who works on what (asking, finding the trials of those
who are gone) happens in turns; see `storage.turn`. A trial that its worker did not bring to an end is told FAIL without
a reason, and is queued again with the same coefficients. So nothing is lost; and since the number of trials is counted
in one's turn, without those that were queued again, nothing is done twice.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.tuning.storage import storage_reachable, turn

HEALTH = "health"
"""The constraint: rungs that the training had to step down. Feasible is 0."""
WORKER, ENDED, REASON, VALUES, ERRORS, DEPTH = "worker", "ended", "reason", "values", "standard_errors", "depth"
"""Attributes of a trial: who works on it; how and why it ended; the objective of each seed, and its standard error
within the run; rungs stepped down."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}
MAX_RETRIES = 10
"""Of one trial: coefficients with which a worker dies every time must not hold up a study for ever."""
_TELL_SECONDS = 120.0
"""Finished work is not given up because the storage is away for a moment."""


@dataclass(frozen=True)
class Outcome:
    """How the work on a trial ended."""

    ended: Literal["complete", "pruned", "failed", "interrupted", "taken"]
    """failed: by no fault of the coefficients, and for good. interrupted: to be done again. taken: others believed that
    the worker was gone, and have given the trial to another."""
    reason: str = ""
    values: tuple[float, ...] = ()
    """The objective of each seed that came to its end."""
    errors: tuple[float | None, ...] = ()
    """Standard error of each value within its run, where it is known."""
    depth: int = 0
    """Rungs that the training had to step down, in the worst of the seeds; more than 0 is infeasible."""


Evaluate = Callable[[optuna.Trial], Outcome]


class _Requeue(RetryHeartbeatStaleTrialCallback):
    """Optuna's own, but what the killed worker has said (its run, a constraint) is not the next one's."""

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        bare = copy.deepcopy(trial)  # Optuna's adds to the list of retries in place
        bare.user_attrs = {}
        bare.system_attrs = {key: value for key, value in bare.system_attrs.items() if not key.startswith("constraint")}
        super().__call__(study, bare)


class Trials:
    """The trials of one study, for one worker.

    Raises:
        InfrastructureFailure: the storage is out of reach.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        *,
        budget: int,
        distributions: dict[str, BaseDistribution],
        sampler: Callable[[int], BaseSampler],
        worker: str,
    ) -> None:
        """`budget`: trials in all; queued ones are done beyond it. `sampler`: that of the trial of a given number."""
        self.study, self.storage = study, storage
        self._budget, self._distributions, self._sampler, self._worker = budget, distributions, sampler, worker
        self._requeue = _Requeue(max_retry=MAX_RETRIES)

    def ask(self) -> optuna.Trial | None:
        """A trial to work on, which is nobody else's; None if there is none at present."""
        with storage_reachable(self.storage.url), turn(self.storage.url):
            self._recover()
            trials = self.all()
            if not any(trial.state == TrialState.WAITING for trial in trials) and self.counted(trials) >= self._budget:
                return None
            self.study.sampler = self._sampler(len(trials))
            trial = self.study.ask(self._distributions)
            self.storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(WORKER, self._worker)  # the last: without it, seen in one's turn, its worker is gone
            return trial

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> bool:
        """Ends a trial; False if it had been given to another worker meanwhile."""
        if outcome.ended == "taken":
            return False
        until = time.monotonic() + _TELL_SECONDS
        while True:
            try:
                with turn(self.storage.url):  # not while others are finding out that it is stale
                    return self._tell(trial, outcome)
            except (StorageInternalError, SQLAlchemyError):
                if time.monotonic() > until:
                    with storage_reachable(self.storage.url):
                        raise
                time.sleep(1.0)

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> bool:
        told: dict[str, Any] = {
            ENDED: outcome.ended,
            VALUES: list(outcome.values),
            ERRORS: list(outcome.errors),
            DEPTH: outcome.depth,
            REASON: outcome.reason or outcome.ended,
        }
        state = _STATES[outcome.ended]
        try:
            if outcome.ended != "interrupted":
                for key, value in told.items():
                    trial.set_user_attr(key, value)
                if HEALTH not in trial.constraints and outcome.ended != "failed":
                    trial.set_constraint(HEALTH, float(outcome.depth))
            self.study.tell(trial, fmean(outcome.values) if outcome.ended == "complete" else None, state)
        except (UpdateFinishedTrialError, ValueError):
            # Told already: by us, just before the storage went away, or by others, who believed that we were gone.
            return next(each for each in self.all() if each.number == trial.number).state == state
        return True

    def all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def counted(self, trials: list[FrozenTrial]) -> int:
        """How many there are, without those that were queued again."""
        return len(trials) - len(superseded(trials))

    def unfinished(self) -> bool:
        """Whether somebody still has work to do, or would have if he lived."""
        trials = self.all()
        return self.counted(trials) < self._budget or any(trial.state not in FINISHED for trial in trials)

    def _recover(self) -> None:
        """Ends the trials of workers that are gone, and queues them again. In one's turn."""
        fail_stale_trials(self.study)
        for trial in self.all():
            if trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)  # killed while asking: before the first heartbeat
        trials = self.all()
        again = superseded(trials)
        for trial in trials:
            if cut_off(trial) and trial.number not in again:
                self._requeue(self.study, trial)


def superseded(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of the trials that have been queued again."""
    return {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def cut_off(trial: FrozenTrial) -> bool:
    """Whether its worker was killed or interrupted, so that it is to be done again."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get(ENDED) != "failed"


def feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())
