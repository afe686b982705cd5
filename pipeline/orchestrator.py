"""The unattended experiment. It reads like this:

start the parent run (or go on where an earlier orchestrator was cut off)
until nothing is left to try:
    start a nested run, and its trainer in a process group of its own
    watch its metrics until it ends, fails, falls silent, or somebody asks to stop
    set verdict, evidence and status, once the process is gone
    ask the ladder what follows
sum up on the parent run
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape

from fallbacks.ladder import Attempt, End, Ladder, Plan
from pipeline.attempt import ATTEMPT_VARIABLE, AttemptFile, PendingFault
from pipeline.compare.command import PAGE, log_page
from pipeline.config import ExperimentConfig, difference
from pipeline.display import Display
from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import Job, Launcher
from pipeline.notes import attempt_summary, markdown_table, resume_command
from pipeline.notify import Notifier
from pipeline.survival.checkpoint_files import fingerprint, usable
from pipeline.survival.ending import Ending, conclude, kernel_kills, tail_of, verdict_at_exit
from pipeline.survival.owner import LIFE_SIGN_SECONDS, Lock, Owner, life_sign
from pipeline.survival.records import Past, lock_path, row
from pipeline.survival.series import Series
from pipeline.survival.signals import heeded
from pipeline.tracking.patience import Patience
from pipeline.tracking.spool import Spool
from pipeline.tracking.store import RUN_VARIABLE, THEIR_WAITING, URI_VARIABLE, Store
from pipeline.watch import Watch

GRACE_SECONDS = 8.0
"""For a trainer that is asked to end in good order: it finishes its update and writes a checkpoint."""


class Orchestrator:
    """Runs one experiment down its ladder."""

    def __init__(
        self,
        config: ExperimentConfig,
        store: Store,
        launcher: Launcher,
        display: Display,
        parent: str | None = None,
        series: Series | None = None,
    ) -> None:
        """`parent`: somebody else's run, under which to nest the attempts; it is neither started nor ended here."""
        self._foreign_parent, self._series = parent, series
        self._stop_reason = "asked to stop"
        self.config, self.store, self.launcher, self.display = config, store, launcher, display
        self.ladder = Ladder(config)
        self.attempts: list[Attempt] = []
        self.parent = ""
        self._rows: list[dict[str, Any]] = []
        self._random_score: dict[str, float] | None = None
        self._last_sign = -math.inf
        self._asked_to_stop = threading.Event()
        self._notify = Notifier(config.notify.command, display.complain)

    def run(self, past: Past | None = None) -> End:
        """Everything, to the end; from the beginning, or from where somebody was cut off.

        Raises:
            InfrastructureFailure: the store is out of reach, the trainer cannot be started, or the disk is full.
        """
        budget = self.config.budget
        self._began = time.monotonic() - (past.seconds if past else 0.0)
        with heeded(self._asked_to_stop):
            self.store.patience = Patience(
                budget.store_away_seconds, self._asked_to_stop, partial(self.display.say, markup=False)
            )
            try:
                return self._run(past)
            except InfrastructureFailure as error:
                # What could not be said to the store is on the disk.
                if self.parent:
                    hint = f"when the cause is gone: {resume_command(self.parent, self.config.tracking)}"
                    self.display.say(f"[red]{escape(str(error))}[/]; {escape(hint)}")
                if self._asked_to_stop.is_set():
                    return End("interrupted", "asked to stop")
                raise
            finally:
                self.store.patience = None

    def _run(self, past: Past | None) -> End:
        if self._foreign_parent is not None:
            self.parent = self._foreign_parent
            return self._go_down(None)
        owner = Owner.here(self.store.root)
        if past is None:
            series = self._series.tags if self._series else {}
            self.parent = self.store.start_parent(self.config, {"ladder.owner": owner.model_dump_json(), **series})
            lock = Lock(lock_path(self.store.root, self.parent), owner)
        else:
            self.parent, lock = past.parent, past.lock
        try:
            if past is not None:
                self.store.reopen(self.parent, self.config, {"ladder.owner": owner.model_dump_json()})
            return self._go_down(past)
        except BaseException as error:
            with contextlib.suppress(InfrastructureFailure):
                self._sum_up("error", f"{type(error).__name__}: {error}", None)
            raise
        finally:
            lock.release()

    def _go_down(self, past: Past | None) -> End:
        """Attempt after attempt, until nothing is left to try."""
        self._sign_of_life(once=False)
        self.display.experiment_started(self.config, self.parent, self.store)
        step = self._go_on(past) if past else self.ladder.first()
        while isinstance(step, Plan) and (ended := self._ended()) is None:
            self.attempts.append(self._attempt(step))
            self._sign_of_life(once=False)
            step = self.ladder.after(self.attempts)
        if isinstance(step, Plan):
            step = End("interrupted", ended or "")
        self._sum_up(step.outcome, step.reason, step.settled_rung)
        return step

    def _go_on(self, past: Past) -> Plan | End:
        """Remembers what has happened so far, and asks the ladder what follows."""
        self.attempts = list(past.attempts)
        self._rows = list(past.rows)
        for problem in past.problems:
            self.display.say(problem, markup=False)
        self._remember_random_score(past.random_score)
        step = self.ladder.resume(self.attempts)
        if isinstance(step, Plan) and step.continues:
            self.attempts.pop(), self._rows.pop()
        return step

    def _seconds(self) -> float:
        """That the experiment has taken so far, without the time for which nobody ran it."""
        return time.monotonic() - self._began

    def stop(self, reason: str) -> None:
        """Asks for an end in good order: the attempt at work is `interrupted`."""
        if not self._asked_to_stop.is_set():
            self._stop_reason = reason
            self._asked_to_stop.set()

    @property
    def asked_to_stop(self) -> str | None:
        """Why somebody has asked for the end, if somebody has."""
        return self._stop_reason if self._asked_to_stop.is_set() else None

    def _ended(self) -> str | None:
        """Why nothing more is to be started, or None."""
        if self.asked_to_stop is not None:
            return self.asked_to_stop
        spent = self._seconds() > 3600 * self.config.budget.hours
        return f"budget.hours={self.config.budget.hours:g} spent" if spent else None

    # One attempt

    def _attempt(self, plan: Plan) -> Attempt:
        number, started = len(self.attempts), time.monotonic()
        diff = difference(self.config, plan.config)
        warm_start, resume_from, before, reported = plan.warm_start, None, 0.0, None
        if plan.continues is None:
            run_id = self.store.start_attempt(
                self.parent,
                plan.config,
                rung=plan.rung.name,
                number=number,
                diff=diff,
                warm_start=plan.warm_start,
                reason=plan.reason,
            )
        else:
            run_id = plan.continues
            latest = self.store.latest(run_id)
            before = latest["cost/seconds"][1] if "cost/seconds" in latest else 0.0
            reported = latest["update"][0] if "update" in latest else None
            if plan.warm_start is not None and plan.warm_start.run_id == run_id:
                resume_from, warm_start = plan.warm_start, plan.began_from
            Ending.path(self.store.root / "attempts" / run_id).unlink(missing_ok=True)
            self.store.reopen(run_id, plan.config, {})
        file = AttemptFile(
            config=plan.config,
            run_id=run_id,
            rung=plan.rung.name,
            number=number,
            folder=str(self.store.root / "attempts" / run_id),
            warm_start=warm_start,
            resume_from=resume_from,
            reported_step=reported,
            random_score=self._random_score,
            faults=self._pending_faults(),
        )
        folder = Path(file.folder)
        self.display.attempt_started(plan, number, run_id)
        try:
            verdict = self._train_and_watch(file)
        except BaseException as error:
            # No run is left RUNNING behind a process that is gone.
            with contextlib.suppress(InfrastructureFailure, OSError):
                Ending.now(_error(error), before + time.monotonic() - started).write(folder)
                self.store.end_attempt(run_id, _error(error))
            raise
        ending = Ending.now(verdict, before + time.monotonic() - started)
        with contextlib.suppress(OSError):  # a full disk: the store may still hear of it
            ending.write(folder)
        checkpoints, problems = usable(folder / "checkpoints", fingerprint(plan.config))
        for problem in problems:
            self.display.say(f"passed over: checkpoint {problem}", markup=False)
        attempt = Attempt(
            number=number,
            rung=plan.rung.name,
            config=plan.config,
            run_id=run_id,
            verdict=verdict,
            checkpoints=checkpoints,
            warm_start=warm_start,
        )
        self._close(attempt, ending)
        if any("disk" in each.detail for each in verdict.evidence):
            free = shutil.disk_usage(folder).free / 2**20
            raise InfrastructureFailure(f"the disk is full, {free:.0f} MiB free for {folder}")
        return attempt

    def _train_and_watch(self, file: AttemptFile) -> Verdict:
        """Launches the trainer and returns only when it and all its children are gone."""
        command = file.config.trainer.command or (sys.executable, "-P", "-m", "pipeline.training")
        scratch = Path(file.folder) / "tmp"  # a trainer that is killed cannot clear up after itself
        environment = {
            **THEIR_WAITING,
            URI_VARIABLE: self.store.uri,
            RUN_VARIABLE: file.run_id,
            ATTEMPT_VARIABLE: str(file.write()),
            "TMPDIR": str(scratch),
        }
        scratch.mkdir(exist_ok=True)
        try:
            job = self.launcher.launch(command, environment, Path(file.folder))
        except (OSError, ValueError) as error:
            raise InfrastructureFailure(f"trainer.command: {command[0]!r} cannot be started: {error}") from error
        try:
            return self._watch(job, file)
        finally:
            job.kill()
            shutil.rmtree(scratch, ignore_errors=True)

    def _watch(self, job: Job, file: AttemptFile) -> Verdict:
        budget, health = self.config.budget, self.config.health
        spool = Spool(Path(file.folder))
        watch = Watch(self.store, file.run_id, file.config.health.build(), spool)
        polled, killed_before = time.monotonic(), kernel_kills()
        while True:
            code = job.wait(min(health.poll_seconds, 0.5))
            if (reason := self._ended()) is not None:
                return _end_in_order(job, reason)
            if code is not None:
                try:
                    # What the metrics say comes before how the process ended.
                    self.store.deliver(file.run_id, spool)
                    verdict, _ = watch.final()
                except InfrastructureFailure as error:
                    return _interrupted(str(error))
                killed = kernel_kills() - killed_before
                return verdict or verdict_at_exit(code, job.log, killed, logged=bool(watch.latest))
            watch.silence()  # a look at its folder
            if time.monotonic() - polled < health.poll_seconds:
                continue
            polled = time.monotonic()
            try:
                self._sign_of_life()
                verdict = watch.poll()
            except StoreAway:
                verdict = None  # it may come back; training goes on, and keeps its metrics
            except InfrastructureFailure as error:
                return _end_in_order(job, str(error))
            if verdict is not None:
                return verdict
            self.display.progress(watch.latest)
            if (silence := watch.silence()) > budget.hang_after_seconds:
                detail = {"silent for seconds": round(silence), "log_tail": tail_of(job.log)}
                return Verdict(name="hang", evidence=(Evidence(rule="hang", detail=detail),))

    def _sign_of_life(self, *, once: bool = True) -> None:
        """Says, now and then, that somebody is at work here, and how long the experiment has taken."""
        if once and time.monotonic() - self._last_sign < LIFE_SIGN_SECONDS:
            return
        signs = {
            "ladder.alive": life_sign(),
            "ladder.seconds": f"{self._seconds():.2f}",
        }
        self.store.set_tags(self.parent, signs, once=once)
        self._last_sign = time.monotonic()

    def _pending_faults(self) -> tuple[PendingFault, ...]:
        """The configured faults that have not struck in as many attempts as they should."""
        pending = []
        for index, fault in enumerate(self.config.faults):
            each = PendingFault(index=index, fault=fault)
            struck = sum(
                each.marker(self.store.root / "attempts" / attempt.run_id).exists() for attempt in self.attempts
            )
            if struck < (1 if fault.kind.startswith("nan_") else fault.times):
                pending.append(each)
        return tuple(pending)

    def _remember_random_score(self, latest: dict[str, float]) -> None:
        found = {name: value for name, value in latest.items() if name.startswith("random/")}
        self._random_score = found or self._random_score

    # What is written down

    def _close(self, attempt: Attempt, ending: Ending) -> None:
        rules = attempt.config.health.build()
        watch, warnings = conclude(
            self.store,
            attempt.run_id,
            ending,
            rules,
            attempt.checkpoints,
            lambda seen: attempt_summary(row(attempt, seen, ending.seconds)),
        )
        self._remember_random_score(watch.latest)
        self._rows.append(row(attempt, watch, ending.seconds))
        self.display.attempt_ended(attempt, warnings, self._rows[-1])
        self._notify("verdict", self._about() | self._rows[-1])

    def _sum_up(self, outcome: str, reason: str, settled_rung: str | None) -> None:
        metrics = {
            "attempts": float(len(self._rows)),
            "cost/minutes": float(sum(row["minutes"] for row in self._rows)),
            **(self._random_score or {}),
        }
        scores = [row["best score"] for row in self._rows if row["best score"] is not None]
        if scores:
            metrics["best/score_window"] = max(scores)
        if settled_rung is not None and self._rows[-1]["score"] is not None:
            metrics["settled/score_window"] = self._rows[-1]["score"]
        if self._foreign_parent is None:
            self._end_parent(outcome, reason, settled_rung, metrics)
        self.display.experiment_ended(outcome, reason, self._rows, self._random_score)
        if self._foreign_parent is None:
            if outcome == "interrupted":
                self.display.say(f"go on with it: {resume_command(self.parent, self.config.tracking)}", markup=False)
            if self._rows and outcome != "error" and self.asked_to_stop is None:  # who stops it does not want to wait
                log_page(self.store, self.parent, self.display.complain)
            end = {"outcome": outcome, "reason": reason, "settled_rung": settled_rung}
            self._notify("end", self._about() | end | metrics | {"attempts": self._rows})

    def _end_parent(self, outcome: str, reason: str, settled_rung: str | None, metrics: dict[str, float]) -> None:
        self.store.log_metrics(self.parent, metrics)
        title = f"**{outcome}** – {reason}"
        if settled_rung is not None and self.config.trainer.command is None and self.config.tracking.publish:
            title += f"\n\nThe policy: `runs:/{self._rows[-1]['run_id']}/player`. All of it: artifact `{PAGE}`."
        note = f"{title}\n\n{markdown_table(self._rows)}" if self._rows else title
        if settled_rung is not None:
            self.store.set_tags(self.parent, {"ladder.settled_run": self._rows[-1]["run_id"]})
        self.store.end_parent(self.parent, outcome, settled_rung, pd.DataFrame(self._rows), note)

    def _about(self) -> dict[str, Any]:
        """Which experiment this is, for a person who is told of it."""
        return {"experiment": self.config.experiment.name, "seed": self.config.training.seed, "parent": self.parent}


def _error(error: BaseException) -> Verdict:
    return Verdict(name="crash", evidence=(Evidence(rule="orchestrator", detail={"error": str(error)}),))


def _interrupted(reason: str) -> Verdict:
    return Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail={"reason": reason}),))


def _end_in_order(job: Job, reason: str) -> Verdict:
    job.terminate()
    job.wait(GRACE_SECONDS)
    return _interrupted(reason)
