"""Ask, tell, recover: every trial of a study is worked on exactly once, by any number of workers, some of them killed.

The storage is the only thing that workers share. A worker holds the storage's lock (`storage.turn`) whenever it changes
who works on what: when it asks for a trial, and when it looks for trials of dead workers. A trial that its worker did
not finish is told FAIL without a reason, and is queued again with the same coefficients, so no trial is lost. Trials
are counted under the lock, without those that were queued again, so no trial is done twice.
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
"""The constraint: number of attempts that failed before one held. A trial with 0 is feasible."""
WORKER, ENDED, REASON, VALUES, ERRORS, DEPTH = "worker", "ended", "reason", "values", "standard_errors", "depth"
"""Attributes of a trial: which worker has it; how and why it ended; the objective of each seed, and its standard error
within the run; attempts that failed."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}
MAX_RETRIES = 10
"""Most retries of one trial, so that coefficients with which every worker dies do not hold up a study for ever."""
_TELL_SECONDS = 120.0
"""How long a worker tries to tell an outcome while the storage is away, so that finished work is not lost."""


@dataclass(frozen=True)
class Outcome:
    """How the work on a trial ended."""

    ended: Literal["complete", "pruned", "failed", "interrupted", "taken"]
    """failed: through no fault of the coefficients, and for good. interrupted: to be done again. taken: another worker
    has the trial, because this one was believed dead."""
    reason: str = ""
    values: tuple[float, ...] = ()
    """The objective of each seed that was trained to the end."""
    errors: tuple[float | None, ...] = ()
    """Standard error of each value within its run; None where it is unknown."""
    depth: int = 0
    """Number of attempts whose training failed, in the worst of the seeds; more than 0 is infeasible."""


Evaluate = Callable[[optuna.Trial], Outcome]
"""Evaluates a trial."""


class _Requeue(RetryHeartbeatStaleTrialCallback):
    """Optuna's callback, except that the new trial does not inherit the dead worker's attributes (run, constraint)."""

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        bare = copy.deepcopy(trial)  # Optuna's callback appends to the list of retries in place
        bare.user_attrs = {}
        bare.system_attrs = {key: value for key, value in bare.system_attrs.items() if not key.startswith("constraint")}
        super().__call__(study, bare)


class Trials:
    """The trials of one study, for one worker.

    Args:
        study: the study in Optuna.
        storage: its storage.
        budget: number of trials in all; queued trials are done beyond it.
        distributions: the search space.
        sampler: gives the sampler for the trial with a given number.
        worker: the name under which this worker takes trials.

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
        self.study, self.storage = study, storage
        self._budget, self._distributions, self._sampler, self._worker = budget, distributions, sampler, worker
        self._requeue = _Requeue(max_retry=MAX_RETRIES)

    def ask(self) -> optuna.Trial | None:
        """A trial that no other worker has; None if there is none at present."""
        with storage_reachable(self.storage.url), turn(self.storage.url):
            self._recover()
            trials = self.all()
            if not any(trial.state == TrialState.WAITING for trial in trials) and self.counted(trials) >= self._budget:
                return None
            self.study.sampler = self._sampler(len(trials))
            trial = self.study.ask(self._distributions)
            self.storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(WORKER, self._worker)  # last: a RUNNING trial without it is one whose worker died here
            return trial

    def tell(self, trial: optuna.Trial, outcome: Outcome) -> bool:
        """Ends a trial; returns False if another worker has it now."""
        if outcome.ended == "taken":
            return False
        until = time.monotonic() + _TELL_SECONDS
        while True:
            try:
                with turn(self.storage.url):  # not while another worker checks whether the trial is stale
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
            # The trial was told already: by this worker, just before the storage went away, or by another worker, which
            # believed that this one was dead.
            return next(each for each in self.all() if each.number == trial.number).state == state
        return True

    def all(self) -> list[FrozenTrial]:
        """All trials of the study, as the storage has them."""
        return self.study.get_trials(deepcopy=False)

    def counted(self, trials: list[FrozenTrial]) -> int:
        """Number of trials, without those that were queued again."""
        return len(trials) - len(superseded(trials))

    def spare(self, seconds: float, deadline: float) -> bool:
        """Whether a trial that has taken so long may go on down the ladder, and the missing trials still be done.

        They are taken to last as long as those so far on average, and the ladder as long as the longest.

        Args:
            seconds: how long the trial has taken.
            deadline: seconds since the epoch; no trial begins after it.
        """
        trials = self.all()
        lasted = [each.duration.total_seconds() for each in trials if each.state in FINISHED[:2] and each.duration]
        at_work = sum(each.state == TrialState.RUNNING for each in trials)
        over = sum(each.state in FINISHED for each in trials) - len(superseded(trials))
        missing = max(0, self._budget - over - at_work)
        needed = missing * fmean([*lasted, seconds]) / max(1, at_work)
        return time.time() + needed + max([*lasted, seconds]) <= deadline

    def unfinished(self) -> bool:
        """Whether any trial of the study is still to be begun, finished or recovered."""
        trials = self.all()
        return self.counted(trials) < self._budget or any(trial.state not in FINISHED for trial in trials)

    def _recover(self) -> None:
        """Ends the trials of dead workers, and queues them again. The caller holds the lock."""
        fail_stale_trials(self.study)
        for trial in self.all():
            if trial.state == TrialState.RUNNING and WORKER not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)  # its worker was killed while it asked
        trials = self.all()
        again = superseded(trials)
        for trial in trials:
            if cut_off(trial) and trial.number not in again:
                self._requeue(self.study, trial)


def superseded(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of the trials that have been queued again."""
    return {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def cut_off(trial: FrozenTrial) -> bool:
    """Whether the trial's worker was killed or interrupted, so that the trial has to be done again."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get(ENDED) != "failed"


def feasible(trial: FrozenTrial) -> bool:
    """Whether the training stayed healthy without the ladder."""
    return all(value <= 0 for value in trial.constraints.values())
