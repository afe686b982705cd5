"""The unattended experiment. It reads like this:

start the parent run (or go on where an earlier orchestrator was cut off)
until nothing is left to try:
    start a nested run, and its trainer in a process group of its own
    watch its metrics until it ends, fails, falls silent, or the user asks to stop
    set verdict, evidence and status, once the process is gone
    ask the ladder what follows
sum up on the parent run
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from fallbacks.ladder import End, Ladder, Plan
from pipeline.attempt.checkpoint_files import fingerprint, newest, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile, PendingFault
from pipeline.attempt.folder import AttemptFolder, experiment_lock
from pipeline.attempt.record import UNKNOWN_QUALITY, Attempt, AttemptSummary, best_of
from pipeline.callbacks.callback import Callback, CallbackList, ExperimentEnded, ExperimentStarted
from pipeline.callbacks.notes import markdown_table, resume_command
from pipeline.compare.command import PAGE
from pipeline.compare.scores import Quality
from pipeline.config import ExperimentConfig, difference
from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.experiment.conclude import conclude, was_taken_away
from pipeline.experiment.cost import cost_together, log_cost
from pipeline.experiment.losses import Losses
from pipeline.experiment.past import Past
from pipeline.experiment.place import Place
from pipeline.experiment.queue import Queue
from pipeline.experiment.room import NO_BOUNDS, Room
from pipeline.experiment.series import Series
from pipeline.experiment.speculation import Speculation
from pipeline.experiment.supervisor import Supervisor, gone
from pipeline.experiment.watchdog import Watchdog
from pipeline.foreign.command import command_of
from pipeline.health.readings import used
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import Launcher
from pipeline.preflight import accepted, accepting
from pipeline.processes.owner import LIFE_SIGN_SECONDS, Lock, Owner, life_sign
from pipeline.processes.signals import heeded
from pipeline.tracking import tags
from pipeline.tracking.patience import Patience
from pipeline.tracking.serialise import in_parts
from pipeline.tracking.store import Store

_CHECK_SECONDS = 10.0
"""Between two looks at whether the parent run has been deleted."""


class Orchestrator:
    """Runs one experiment down its ladder."""

    def __init__(
        self,
        config: ExperimentConfig,
        store: Store,
        launcher: Launcher,
        callbacks: Sequence[Callback] = (),
        parent: str | None = None,
        series: Series | None = None,
        room: Room = NO_BOUNDS,
    ) -> None:
        """`parent`: another program's run, in which the attempts are nested. It is neither started nor ended here.

        `room`: what experiments that run at the same time share of this machine.
        """
        self._foreign_parent, self._series = parent, series
        self._stop_reason = "asked to stop"
        self.config, self.store, self._told = config, store, CallbackList(callbacks)
        self.ladder = Ladder(config)
        self.attempts: list[Attempt] = []
        self.parent = ""
        self._summaries: list[AttemptSummary] = []
        self._random_score: dict[str, float] | None = None
        self._last_sign = self._last_check = -math.inf
        self._asked_to_stop = threading.Event()
        self._supervisor = Supervisor(
            store,
            launcher,
            config.budget,
            config.health.poll_seconds,
            ended=self._ended,
            progress=self._told.progress,
            sign_of_life=self._sign_of_life,
            tell=self._told.message,
            warn=self._told.warning,
            at_work=self._note_place,
            foresee=lambda file, verdict: self._speculation.foresee(file, self.attempts, verdict),
            room=room,
        )
        self._speculation = Speculation(self.ladder, launcher, self._told.message)
        self._losses = Losses(config.launcher.lost)
        self._queue = Queue()
        self._said_place = ""
        self._run_at_work = ""

    def run(self, past: Past | None = None) -> End:
        """Runs the experiment to its end, from its beginning or from where it was cut off.

        Raises:
            InfrastructureFailure: the store is out of reach, the trainer cannot be started, or the disk is full.
        """
        self._began = time.monotonic() - (past.seconds if past else 0.0)
        with heeded(self._asked_to_stop):
            seconds = self.config.budget.store_away_seconds
            self.store.patience = Patience(seconds, self._asked_to_stop, self._told.message)
            try:
                return self._run(past)
            except InfrastructureFailure as error:
                # What could not be said to the store is on the disk.
                if self.parent:
                    hint = f"when the cause is gone: {resume_command(self.parent, self.config.tracking)}"
                    self._told.message(f"{error}; {hint}", error=True)
                if self._asked_to_stop.is_set():
                    return End("interrupted", "asked to stop")
                raise
            finally:
                self._speculation.close()
                self._supervisor.close()
                self.store.patience = None
                self._told.close()

    def _run(self, past: Past | None) -> End:
        if self._foreign_parent is not None:
            self.parent = self._foreign_parent
            try:
                return self._go_down(None)
            except BaseException as error:
                self._end_attempts(error)
                raise
        owner = Owner.here(self.store.root)
        if past is None:
            series = self._series.tags if self._series else {}
            place = in_parts(tags.PLACE, Place.here(self.config, self.store.root).model_dump_json())
            on_purpose = {tags.ACCEPTED: ", ".join(names)} if (names := accepted(self.config)) else {}
            said = {tags.OWNER: owner.model_dump_json(), **place, **series, **on_purpose}
            self.parent = self.store.start_parent(self.config, said)
            lock = Lock(experiment_lock(self.store.root, self.parent), owner)
        else:
            self.parent, lock = past.parent, past.lock
        told = True
        try:
            if past is not None:
                self.store.reopen(self.parent, self.config, {tags.OWNER: owner.model_dump_json()})
            return self._go_down(past)
        except BaseException as error:
            told = self._end_attempts(error)
            try:
                self._sum_up("error", f"{type(error).__name__}: {error}", None, resumable=False)
            except InfrastructureFailure:
                told = False
            raise error
        finally:
            lock.release(keep=not told)

    def _end_attempts(self, error: BaseException) -> bool:
        """Gives a verdict to each attempt that an error has left without one. Returns whether the store was told."""
        try:
            parent = self.store.run(self.parent)
            for run in self.store.attempts(parent) if parent is not None else ():
                if run.is_open:
                    self.store.end_attempt(run.run_id, _error(error))
        except InfrastructureFailure:
            return False
        return True

    def _go_down(self, past: Past | None) -> End:
        """Runs attempt after attempt, until nothing is left to try."""
        self._sign_of_life(once=False)
        nested = self._foreign_parent is not None
        started = ExperimentStarted(self.config, self.parent, self.store.uri, self.store.root, nested, self.stop)
        self._told.experiment_started(started)
        step = self._go_on(past) if past else self.ladder.first()
        while isinstance(step, Plan) and (ended := self._ended()) is None:
            self.attempts.append(self._attempt(step))
            self._sign_of_life(once=False)
            step = self._after()
            self._speculation.settle(step)
        if isinstance(step, Plan):
            step = End("interrupted", ended or "")
        self._sum_up(step.outcome, step.reason, step.settled_rung)
        return step

    def _go_on(self, past: Past) -> Plan | End:
        """Takes over what has happened so far; returns what follows."""
        self.attempts, self._summaries = list(past.attempts), list(past.summaries)
        for problem in past.problems:
            self._told.message(problem)
        self._remember_random_score(past.random_score)
        if past.at_work is not None:
            self.attempts.append(self._attend(past.at_work, past.seconds))
            self._sign_of_life(once=False)
            step = self._after()
            self._speculation.settle(step)
            return step
        return self._continued(self.ladder.resume(self.attempts))

    def _after(self) -> Plan | End:
        """What follows the last attempt. One whose trainer was taken away goes on as after an interruption."""
        if was_taken_away(self.attempts[-1].verdict):
            return self._continued(self.ladder.resume(self.attempts))
        return self.ladder.after(self.attempts)

    def _continued(self, step: Plan | End) -> Plan | End:
        """The same; an attempt that goes on in its own run is no past one."""
        if isinstance(step, Plan) and step.continues:
            self.attempts.pop(), self._summaries.pop()
        return step

    def _attend(self, file: AttemptFile, seconds: float) -> Attempt:
        """Goes on with an attempt whose trainer has outlived its orchestrator. `seconds`: of the whole experiment."""
        file = file.model_copy(update={"number": len(self.attempts)})
        rung = next(each for each in self.ladder.rungs if each.name == file.rung)
        reason = "its trainer is at work, or has ended meanwhile"
        plan = Plan(rung, file.config, file.warm_start, reason, remedy=file.remedy)
        before = max(0.0, seconds - 60 * sum(each.minutes for each in self._summaries))
        return self._watched(plan, file, before, self._supervisor.attend)

    def _seconds(self) -> float:
        """Seconds that it has taken so far, without the time in which no orchestrator ran it or it was queued."""
        return time.monotonic() - self._began - self._queue.seconds

    def _note_place(self, waiting: str | None, place: str) -> None:
        """Takes note of what the trainer waits for, and of where it is at work; and tells when that changes."""
        self._queue.note(waiting is not None)
        kind = self.config.launcher.kind
        if waiting is None and kind == "local" and not self._said_place:
            return  # it is where the orchestrator is, as ever
        if waiting is None and not place:
            return
        said = waiting or f"at work on {place}"
        if said == self._said_place:
            return
        first, self._said_place = not self._said_place, said
        after = "" if waiting or first else f", after {self._queue.last:.0f} s in the queue"
        self._told.message(f"{said}{after}")
        if not self._run_at_work:
            return
        with contextlib.suppress(StoreAway):  # it is told again at the next change
            since = {"said": said, "waits": waiting is not None, "since": life_sign()}
            self.store.set_tags(self._run_at_work, {tags.PLACE_OF_JOB: json.dumps(since)}, once=True)

    def stop(self, reason: str) -> None:
        """Asks for an end in good order: the attempt at work is `interrupted`."""
        if not self._asked_to_stop.is_set():
            self._stop_reason = reason
            self._asked_to_stop.set()

    @property
    def asked_to_stop(self) -> str | None:
        """Why the experiment was asked to end; None: it was not."""
        return self._stop_reason if self._asked_to_stop.is_set() else None

    def _ended(self) -> str | None:
        """Why no further attempt may start; None: it may."""
        if self.asked_to_stop is not None:
            return self.asked_to_stop
        spent = self._seconds() > 3600 * self.config.budget.hours
        return f"budget.hours={self.config.budget.hours:g} spent" if spent else None

    # One attempt

    def _attempt(self, plan: Plan) -> Attempt:
        file, before = self._begin(plan) if plan.continues is None else self._continue(plan, plan.continues)
        return self._watched(plan, file, before, self._supervisor.run)

    def _watched(
        self, plan: Plan, file: AttemptFile, before: float, watch: Callable[[AttemptFile], Verdict]
    ) -> Attempt:
        """An attempt to its end. `before`: the seconds that it had taken already."""
        started, queued = time.monotonic(), self._queue.seconds
        self._run_at_work, self._said_place = file.run_id, ""
        self._told.attempt_started(plan, file.number, file.run_id)

        def ending(verdict: Verdict) -> Ending:
            seconds = time.monotonic() - started - (self._queue.seconds - queued)
            return Ending.now(verdict, before + max(0.0, seconds))

        try:
            verdict = watch(file)
            self._queue.note(False)
            if was_taken_away(verdict):
                verdict = self._losses.judged(verdict, newest_step(file.where, file.config))
        except BaseException as error:
            # No run is left RUNNING behind a process that is gone.
            with contextlib.suppress(InfrastructureFailure, OSError):
                ended = ending(_error(error))
                if self.store.root.exists():
                    ended.write(file.where.path)
                self.store.end_attempt(file.run_id, _error(error))
                log_cost(self.store, file.run_id, ended)
            raise
        ended = ending(verdict)
        there = file.where.path.exists()
        if there:
            with contextlib.suppress(OSError):  # a full disk: the store may still hear of it
                ended.write(file.where.path)
        attempt = self._close(file, ended)
        if not there:
            raise InfrastructureFailure(gone(file.where))
        if any("disk" in each.detail for each in verdict.evidence):
            free = shutil.disk_usage(file.folder).free / 2**20
            raise InfrastructureFailure(f"the disk is full, {free:.0f} MiB free for {file.folder}")
        return attempt

    def _begin(self, plan: Plan) -> tuple[AttemptFile, float]:
        """Starts a nested run. Returns the attempt's file, and 0: it has taken no time yet."""
        run_id = self.store.start_attempt(
            self.parent,
            accepting(plan.config),  # a rung differs from the brief by design, and its file can be run again
            rung=plan.rung.name,
            number=len(self.attempts),
            diff=difference(self.config, plan.config),
            warm_start=plan.warm_start,
            reason=plan.reason,
            remedy=plan.remedy,
        )
        return self._file(plan, run_id), 0.0

    def _continue(self, plan: Plan, run_id: str) -> tuple[AttemptFile, float]:
        """Opens the run of an interrupted attempt again. Returns the attempt's file, and the seconds it had taken."""
        latest = self.store.latest(run_id)
        before = used({name: value for name, (_, value, _) in latest.items()}).get("cost/seconds", 0.0)
        Ending.path(AttemptFolder.of(self.store.root, run_id).path).unlink(missing_ok=True)
        self.store.reopen(run_id, plan.config, {})
        changed: dict[str, object] = {"reported_step": latest["update"][0] if "update" in latest else None}
        if plan.warm_start is not None and plan.warm_start.run_id == run_id:
            changed |= {"resume_from": plan.warm_start, "warm_start": plan.began_from}
        return self._file(plan, run_id).model_copy(update=changed), before

    def _file(self, plan: Plan, run_id: str) -> AttemptFile:
        folder = str(AttemptFolder.of(self.store.root, run_id).path)
        command = command_of(plan.config, folder, plan.warm_start)
        if command is not None:
            self.store.set_tags(run_id, {tags.COMMAND: shlex.join(command)})
        return AttemptFile(
            config=plan.config,
            run_id=run_id,
            rung=plan.rung.name,
            remedy=plan.remedy,
            number=len(self.attempts),
            folder=folder,
            command=command,
            warm_start=plan.warm_start,
            random_score=self._random_score,
            faults=self._pending_faults(),
        )

    def _sign_of_life(self, *, once: bool = True) -> None:
        """Writes the time, and how long the experiment has taken, to the parent run, at most every half minute."""
        now = time.monotonic()
        if once and now - self._last_sign < LIFE_SIGN_SECONDS:
            if now - self._last_check >= _CHECK_SECONDS:
                self.store.check_active(self.parent, once=True)
                self._last_check = now
            return
        signs = {
            tags.ALIVE: life_sign(),
            tags.SECONDS: f"{self._seconds():.2f}",
        }
        self.store.set_tags(self.parent, signs, once=once)
        self._last_sign = time.monotonic()

    def _pending_faults(self) -> tuple[PendingFault, ...]:
        """The configured faults that have not struck in as many attempts as they should."""
        pending = []
        for index, fault in enumerate(self.config.faults):
            each = PendingFault(index=index, fault=fault)
            folders = [AttemptFolder.of(self.store.root, attempt.run_id).path for attempt in self.attempts]
            struck = sum(each.marker(folder).exists() for folder in folders)
            if struck < (1 if fault.kind.startswith("nan_") else fault.times):
                pending.append(each)
        return tuple(pending)

    def _remember_random_score(self, latest: Mapping[str, float]) -> None:
        found = {name: value for name, value in latest.items() if name.startswith("random/")}
        self._random_score = found or self._random_score

    # What is written down

    def _close(self, file: AttemptFile, ending: Ending) -> Attempt:
        """Tells the store and the callbacks of an attempt whose process is gone."""
        checkpoints, problems = usable(file.where.checkpoints, fingerprint(file.config))
        for problem in problems:
            self._told.message(f"passed over: checkpoint {problem}")
        attempt = Attempt.of(file, ending.verdict, checkpoints)

        def summary(seen: Watchdog, quality: Quality) -> AttemptSummary:
            return AttemptSummary.of(attempt, seen.latest, seen.last_step, ending.seconds, quality.name)

        done = conclude(
            self.store,
            attempt.run_id,
            ending,
            file.rules,
            checkpoints,
            lambda seen, quality: summary(seen, quality).sentence,
            file.config.rules_to_be_judged,
        )
        self._remember_random_score(done.watch.latest)
        self._summaries.append(summary(done.watch, done.quality))
        self._told.attempt_ended(attempt, self._summaries[-1])
        for evidence in done.untold:
            self._told.warning(evidence)
        return attempt

    def _sum_up(self, outcome: str, reason: str, settled_rung: str | None, *, resumable: bool = True) -> None:
        """`resumable`: whether the command that goes on with it is told, if it can go on."""
        summaries = self._summaries
        metrics = {
            "attempts": float(len(summaries)),
            **cost_together(self.store, self.parent),
            **(self._random_score or {}),
        }
        scores = [each.best_score for each in summaries if each.best_score is not None]
        if scores:
            metrics["best/score_window"] = max(scores)
        if settled_rung is not None and (score := summaries[-1].score) is not None:
            metrics["settled/score_window"] = score
        best = summaries[-1] if settled_rung is not None else best_of(summaries) if outcome == "compared" else None
        quality = UNKNOWN_QUALITY if best is None else best.quality
        own = self._foreign_parent is None
        if own:
            self._end_parent(outcome, reason, settled_rung, quality, metrics)
        resumable = resumable and own and outcome in ("interrupted", "error")
        ended = ExperimentEnded(
            outcome=outcome,
            reason=reason,
            settled_rung=settled_rung,
            quality=quality,
            attempts=tuple(summaries),
            metrics=metrics,
            random_score=self._random_score,
            stopped=self.asked_to_stop is not None,
            resume=resume_command(self.parent, self.config.tracking) if resumable else None,
        )
        self._told.experiment_ended(ended)

    def _end_parent(
        self, outcome: str, reason: str, settled_rung: str | None, quality: str, metrics: dict[str, float]
    ) -> None:
        summaries = self._summaries
        self.store.log_metrics(self.parent, metrics)
        title = f"**{outcome}** – {reason}"
        if settled_rung is not None and self.config.trainer.command is None and self.config.tracking.publish:
            title += f"\n\nThe policy: `runs:/{summaries[-1].run_id}/player`. All of it: artifact `{PAGE}`."
        rows = [each.row for each in summaries]
        note = f"{title}\n\n{markdown_table(rows)}" if rows else title
        if settled_rung is not None:
            self.store.set_tags(self.parent, {tags.SETTLED_RUN: summaries[-1].run_id})
        self.store.set_tags(self.parent, {tags.QUALITY: quality})
        self.store.end_parent(self.parent, outcome, settled_rung, pd.DataFrame(rows), note)


def newest_step(folder: AttemptFolder, config: ExperimentConfig) -> int:
    """The step of an attempt's newest usable checkpoint; -1: there is none."""
    checkpoints, _ = usable(folder.checkpoints, fingerprint(config))
    return newest(checkpoints).step if checkpoints else -1


def _error(error: BaseException) -> Verdict:
    return Verdict(name="crash", evidence=(Evidence(rule="orchestrator", detail={"error": str(error)}),))
