"""One trainer from its start to its verdict: launched, watched, and gone when the verdict is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.attempt.file import ATTEMPT_VARIABLE, RUN_VARIABLE, URI_VARIABLE, AttemptFile
from pipeline.attempt.folder import AttemptFolder, remove_scratch, served_log
from pipeline.attempt.spool import Spool
from pipeline.config import BudgetSection
from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.experiment.arising import Arising
from pipeline.experiment.conclude import (
    interrupted,
    never_started,
    taken_away,
    verdict_of,
)
from pipeline.experiment.first_metric import FirstMetric
from pipeline.experiment.room import NO_BOUNDS, Room, need_of
from pipeline.experiment.watchdog import Watchdog
from pipeline.foreign.redirect import redirected
from pipeline.foreign.script_files import ScriptFiles
from pipeline.foreign.speaks import may_speak_to_mlflow
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import OWN_TRAINER, CannotStart, Job, Launcher
from pipeline.launchers.choose import launcher_of
from pipeline.launchers.exit import tail_of
from pipeline.processes.environment import their_environment
from pipeline.tracking.served import ServedStore, other_version
from pipeline.tracking.store import Store


class Supervisor:
    """Runs the trainers of an experiment, one at a time.

    Args:
        ended: why nothing more is to run, or None while it may.
        progress: called at each poll with the newest values of all metrics.
        sign_of_life: called at each poll; may raise StoreAway.
        tell: called with what the user should know beside that.
        warn: called with what the rules with the action `warn` find while an attempt runs.
        at_work: called at each look with what the trainer waits for (None: it does not), and with where it is at work.
        foresee: called at each poll with the verdict that may come, or with None.
        room: where a trainer of this machine has its cores and its memory; it waits until there are enough.
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
        warn: Callable[[Evidence], None] = lambda _: None,
        at_work: Callable[[str | None, str], None] = lambda *_: None,
        foresee: Callable[[AttemptFile, Verdict | None], None] = lambda *_: None,
        room: Room = NO_BOUNDS,
    ) -> None:
        self._foresee = foresee
        self._store, self._launcher, self._budget, self._poll_seconds = store, launcher, budget, poll_seconds
        self._ended, self._progress, self._sign_of_life, self._tell = ended, progress, sign_of_life, tell
        self._warn, self._at_work, self._room = warn, at_work, room
        self._served: ServedStore | None = None

    def run(self, file: AttemptFile) -> Verdict:
        """Launches the trainer and returns only when it and all its children are gone.

        Raises:
            InfrastructureFailure: the trainer cannot be started.
        """
        file.write()  # before it waits: one that is ended in a queue has its folder, too
        with contextlib.ExitStack() as held:
            for why in self._room.wait_for(need_of(file.config), held):
                if (reason := self._ended()) is not None:
                    return interrupted(reason)
                self._at_work(why, "")
                with contextlib.suppress(StoreAway):
                    self._sign_of_life()
            return self._run(file)

    def attend(self, file: AttemptFile) -> Verdict:
        """Goes on watching a trainer that an orchestrator which is gone has launched. It returns as :meth:`run` does.

        Raises:
            InfrastructureFailure: as above.
        """
        files = ScriptFiles.of(file, Path.cwd(), self._store.root, begun=True)
        job = self._launcher.attach(file.path)
        if job is None:  # it is of another launcher, if the user has named another one since
            with contextlib.closing(launcher_of(file.path)) as theirs:
                theirs.end_remains(file.path)
            return taken_away("its job is gone, and has not said how it ended")
        return self._until_gone(job, file, files)

    def _run(self, file: AttemptFile) -> Verdict:
        command = file.command or OWN_TRAINER
        scratch = file.where.make_scratch()
        environment = {
            URI_VARIABLE: self._uri_for(command, file),
            RUN_VARIABLE: file.run_id,
            ATTEMPT_VARIABLE: str(file.path),
            "TMPDIR": str(scratch),
            **redirected(file.config, their_environment()),
        }
        files = ScriptFiles.of(file, Path.cwd(), self._store.root)
        try:
            job = self._launcher.launch(command, environment, Path(file.folder))
        except CannotStart as error:
            file.where.remove_leftovers()
            return never_started(f"trainer.command: {error}")
        except (OSError, ValueError) as error:
            file.where.remove_leftovers()
            raise InfrastructureFailure(f"trainer.command: {command[0]!r} cannot be started: {error}") from error
        try:
            return self._until_gone(job, file, files)
        finally:
            remove_scratch(scratch)  # also where the attempt's folder is gone, and its note with it

    def _until_gone(self, job: Job, file: AttemptFile, files: ScriptFiles) -> Verdict:
        try:
            return self._watch(job, file, files)
        finally:
            ended = job.wait(0)
            job.kill()
            files.finish(in_order=ended is not None and ended.in_order)
            self._tell_news(files)
            file.where.remove_leftovers()

    def _uri_for(self, command: Sequence[str], file: AttemptFile) -> str:
        """Where the trainer finds the store: through a server, if its MLflow cannot open the SQLite file.

        A script whose metrics are read from its files needs none, unless it may speak to MLflow beside that.
        """
        uri, files_only = self._store.uri, file.config.trainer.metrics.kind != "mlflow"
        if command == OWN_TRAINER or not uri.startswith("sqlite:"):
            return uri
        if (files_only and not may_speak_to_mlflow(command, Path.cwd())) or (theirs := other_version(command)) is None:
            return uri
        if self._served is None:
            self._served = ServedStore(uri, served_log(self._store.root))
            self._tell(
                f"the trainer's MLflow is {theirs}, which cannot open this store; it is served at {self._served.uri}"
            )
        return self._served.uri

    def close(self) -> None:
        """Ends what trainers have shared."""
        if self._served is not None:
            self._served.close()
            self._served = None

    def _watch(self, job: Job, file: AttemptFile, files: ScriptFiles) -> Verdict:
        spool = Spool(Path(file.folder))
        watchdog = Watchdog(self._store, file.run_id, file.rules, spool, file.config.rules_to_be_judged)
        arising = Arising(self._store, watchdog)
        first = FirstMetric(file, files, Path.cwd(), self._store.root)
        polled, began, grace = time.monotonic(), time.time(), file.config.trainer.grace_seconds
        while True:
            ended = job.wait(min(self._poll_seconds, 0.5))
            if ended is None:
                waiting = job.waiting
                self._at_work(waiting, job.place)
                if waiting is not None:
                    watchdog.rest()
            if (reason := self._ended()) is not None:
                return _end_in_order(job, reason, grace)
            if ended is not None and not file.where.path.exists():
                return interrupted(gone(file.where))
            if ended is not None:
                files.read_metrics(to_the_end=True)
                try:
                    self._store.deliver(file.run_id, spool, ended=True)
                    judged = verdict_of(file, ended, watchdog)
                    self._tell_news(watchdog)
                    if file.command is not None and not watchdog.has_logged and ended.refused is None:
                        self._tell_where_it_logged(began)
                except InfrastructureFailure as error:
                    return interrupted(str(error))
                return judged
            watchdog.silence()  # a look at its folder
            if time.monotonic() - polled < self._poll_seconds:
                continue
            polled = time.monotonic()
            if not file.where.path.exists():
                return _end_in_order(job, gone(file.where), grace)
            files.read_metrics()
            try:
                self._sign_of_life()
                verdict = watchdog.poll()
            except StoreAway:
                verdict = None  # it may come back; training goes on, and keeps its metrics
            except InfrastructureFailure as error:
                return _end_in_order(job, str(error), grace)
            if verdict is not None and file.config.ladder.compares:
                watchdog.note(verdict)
                verdict = None
            files.keep_checkpoints(watchdog.last_step)
            self._tell_news(watchdog)
            self._tell_news(files)
            if (waiting := first.news(has_logged=watchdog.has_logged)) is not None:
                self._tell(waiting)
            if verdict is not None:
                return verdict
            for evidence in arising.look():
                self._warn(evidence)
            self._progress(watchdog.latest)
            silence = watchdog.silence()
            self._foresee(file, _foreseen(watchdog, silence, self._budget.hang_after_seconds))
            if silence > self._budget.hang_after_seconds and not watchdog.has_spoken_unseen():
                detail = {"silent for seconds": round(silence), "log_tail": tail_of(job.log)}
                return Verdict(name="hang", evidence=(Evidence(rule="hang", detail=detail),))

    def _tell_where_it_logged(self, began: float) -> None:
        """A script that has logged nothing to its attempt's run may have started one of its own."""
        for run in self._store.others_since(int(1000 * began))[:3]:
            self._tell(
                f"the script logged nothing to its attempt's run; meanwhile run {run.run_id} ({run.name}) was started "
                f"in MLflow's experiment {run.experiment_id}. In a script, mlflow.start_run() without an experiment "
                f"of its own continues the attempt's run"
            )

    def _tell_news(self, of: Watchdog | ScriptFiles) -> None:
        for sentence in of.news():
            self._tell(sentence)


def gone(folder: AttemptFolder) -> str:
    """What is told where an attempt's folder is missing."""
    return f"{folder.path} has been removed while the attempt was at work; its checkpoints and its log are lost"


def _foreseen(watchdog: Watchdog, silence: float, hang_after_seconds: float) -> Verdict | None:
    """The verdict that may come. A silence of half the time that counts as a hang is a sign of one."""
    if watchdog.foreseen is None and silence > hang_after_seconds / 2:
        return Verdict(name="hang", evidence=(Evidence(rule="hang", detail={"silent for seconds": round(silence)}),))
    return watchdog.foreseen


def _end_in_order(job: Job, reason: str, grace_seconds: float) -> Verdict:
    job.terminate()
    job.wait(grace_seconds + job.late_seconds)
    return interrupted(reason)
