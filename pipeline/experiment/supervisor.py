"""One trainer from its start to its verdict: launched, watched, and gone when the verdict is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.attempt.file import ATTEMPT_VARIABLE, RUN_VARIABLE, URI_VARIABLE, AttemptFile
from pipeline.attempt.folder import AttemptFolder, remove_scratch
from pipeline.attempt.spool import Spool
from pipeline.config import BudgetSection
from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.experiment.conclude import interrupted, never_started, verdict_at_exit
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import OWN_TRAINER, CannotStart, Job, Launcher
from pipeline.launchers.exit import tail_of
from pipeline.tracking.store import Store

GRACE_SECONDS = 8.0
"""For a trainer that is asked to end in good order: it finishes its update and writes a checkpoint."""


class Supervisor:
    """Runs the trainers of an experiment, one at a time.

    Args:
        ended: why nothing more is to run, or None while it may.
        progress: called at each poll with the newest values of all metrics.
        sign_of_life: called at each poll; may raise StoreAway.
        tell: called with what the user should know beside that.
    """

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        budget: BudgetSection,
        poll_seconds: float,
        ended: Callable[[], str | None],
        progress: Callable[[Mapping[str, float]], None],
        sign_of_life: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._store, self._launcher, self._budget, self._poll_seconds = store, launcher, budget, poll_seconds
        self._ended, self._progress, self._sign_of_life, self._tell = ended, progress, sign_of_life, tell

    def run(self, file: AttemptFile) -> Verdict:
        """Launches the trainer and returns only when it and all its children are gone.

        Raises:
            InfrastructureFailure: the trainer cannot be started.
        """
        command = file.config.trainer.command or OWN_TRAINER
        path = file.write()
        scratch = file.where.make_scratch()
        environment = {
            URI_VARIABLE: self._store.uri,
            RUN_VARIABLE: file.run_id,
            ATTEMPT_VARIABLE: str(path),
            "TMPDIR": str(scratch),
        }
        try:
            job = self._launcher.launch(command, environment, Path(file.folder))
        except CannotStart as error:
            file.where.remove_leftovers()
            return never_started(f"trainer.command: {error}")
        except (OSError, ValueError) as error:
            file.where.remove_leftovers()
            raise InfrastructureFailure(f"trainer.command: {command[0]!r} cannot be started: {error}") from error
        try:
            return self._watch(job, file)
        finally:
            job.kill()
            file.where.remove_leftovers()
            remove_scratch(scratch)  # also where the attempt's folder is gone, and its note with it

    def _watch(self, job: Job, file: AttemptFile) -> Verdict:
        spool = Spool(Path(file.folder))
        watchdog = Watchdog(self._store, file.run_id, file.config.health.build(), spool, file.config.rules_to_be_judged)
        polled = time.monotonic()
        while True:
            ended = job.wait(min(self._poll_seconds, 0.5))
            if (reason := self._ended()) is not None:
                return _end_in_order(job, reason)
            if ended is not None and not file.where.path.exists():
                return interrupted(gone(file.where))
            if ended is not None:
                try:
                    # What the metrics say comes before how the process ended.
                    self._store.deliver(file.run_id, spool, ended=True)
                    verdict, _ = watchdog.final()
                    self._tell_news(watchdog)
                except InfrastructureFailure as error:
                    return interrupted(str(error))
                scratch = file.warm_start is None and file.resume_from is None
                return verdict or verdict_at_exit(
                    ended, logged=watchdog.has_logged, scratch=scratch, last_step=max(0, watchdog.last_step)
                )
            watchdog.silence()  # a look at its folder
            if time.monotonic() - polled < self._poll_seconds:
                continue
            polled = time.monotonic()
            if not file.where.path.exists():
                return _end_in_order(job, gone(file.where))
            try:
                self._sign_of_life()
                verdict = watchdog.poll()
            except StoreAway:
                verdict = None  # it may come back; training goes on, and keeps its metrics
            except InfrastructureFailure as error:
                return _end_in_order(job, str(error))
            self._tell_news(watchdog)
            if verdict is not None:
                return verdict
            self._progress(watchdog.latest)
            silence = watchdog.silence()
            if silence > self._budget.hang_after_seconds and not watchdog.has_spoken_unseen():
                detail = {"silent for seconds": round(silence), "log_tail": tail_of(job.log)}
                return Verdict(name="hang", evidence=(Evidence(rule="hang", detail=detail),))

    def _tell_news(self, watchdog: Watchdog) -> None:
        for sentence in watchdog.news():
            self._tell(sentence)


def gone(folder: AttemptFolder) -> str:
    """What is told where an attempt's folder is missing."""
    return f"{folder.path} has been removed while the attempt was at work; its checkpoints and its log are lost"


def _end_in_order(job: Job, reason: str) -> Verdict:
    job.terminate()
    job.wait(GRACE_SECONDS)
    return interrupted(reason)
