"""The unattended experiment. It reads like this:

start the parent run
until nothing is left to try:
    start a nested run, and its trainer in a process group of its own
    watch its metrics until it ends, fails, falls silent, or somebody asks to stop
    set verdict, evidence and status, once the process is gone
    ask the ladder what follows
sum up on the parent run
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from fallbacks.ladder import Attempt, Checkpoint, End, Ladder, Plan
from pipeline.attempt import ATTEMPT_VARIABLE, EXIT_OUT_OF_MEMORY, AttemptFile, PendingFault
from pipeline.config import ExperimentConfig, difference
from pipeline.display import Display
from pipeline.errors import InfrastructureFailure
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import Job, Launcher
from pipeline.tracking import RUN_VARIABLE, URI_VARIABLE, Store
from pipeline.watch import Watch

GRACE_SECONDS = 8.0
"""For a trainer that is asked to end in good order: it finishes its update and writes a checkpoint."""


class Orchestrator:
    """Runs one experiment down its ladder."""

    def __init__(self, config: ExperimentConfig, store: Store, launcher: Launcher, display: Display) -> None:
        self.config, self.store, self.launcher, self.display = config, store, launcher, display
        self.ladder = Ladder(config)
        self.attempts: list[Attempt] = []
        self._rows: list[dict[str, Any]] = []
        self._random_score: dict[str, float] | None = None
        self._asked_to_stop = threading.Event()

    def run(self) -> End:
        """Everything, to the end.

        Raises:
            InfrastructureFailure: the store is out of reach, or the trainer cannot be started.
        """
        self._deadline = time.monotonic() + 3600 * self.config.budget.hours
        with self._signals():
            self.parent = self.store.start_parent(self.config)
            try:
                self.display.experiment_started(self.config, self.parent, self.store)
                step: Plan | End = self.ladder.first()
                while isinstance(step, Plan) and (ended := self._ended()) is None:
                    self.attempts.append(self._attempt(step))
                    step = self.ladder.after(self.attempts)
                if isinstance(step, Plan):
                    step = End("interrupted", ended or "")
            except BaseException as error:
                with contextlib.suppress(InfrastructureFailure):
                    self._sum_up("error", f"{type(error).__name__}: {error}", None)
                raise
            self._sum_up(step.outcome, step.reason, step.settled_rung)
            return step

    def _ended(self) -> str | None:
        """Why nothing more is to be started, or None."""
        if self._asked_to_stop.is_set():
            return "asked to stop"
        spent = time.monotonic() > self._deadline
        return f"budget.hours={self.config.budget.hours:g} spent" if spent else None

    # One attempt

    def _attempt(self, plan: Plan) -> Attempt:
        number, started = len(self.attempts), time.monotonic()
        run_id = self.store.start_attempt(
            self.parent,
            plan.config,
            rung=plan.rung.name,
            number=number,
            diff=difference(self.config, plan.config),
            warm_start=plan.warm_start,
            reason=plan.reason,
        )
        file = AttemptFile(
            config=plan.config,
            run_id=run_id,
            rung=plan.rung.name,
            number=number,
            folder=str(self.store.root / "attempts" / run_id),
            warm_start=plan.warm_start,
            random_score=self._random_score,
            faults=self._pending_faults(),
        )
        self.display.attempt_started(plan, number, run_id)
        watch = Watch(self.store, run_id, plan.config.health.build())
        try:
            verdict = self._train_and_watch(file, watch)
            self._remember_random_score(watch.latest)
            attempt = Attempt(
                number=number,
                rung=plan.rung.name,
                config=plan.config,
                run_id=run_id,
                verdict=verdict,
                checkpoints=read_checkpoints(Path(file.folder)),
                warm_start=plan.warm_start,
            )
            self._close(attempt, watch, warnings=watch.final()[1], seconds=time.monotonic() - started)
        except BaseException as error:
            # No run is left RUNNING behind a process that is gone.
            with contextlib.suppress(InfrastructureFailure):
                self.store.end_attempt(run_id, _error(error))
            raise
        return attempt

    def _train_and_watch(self, file: AttemptFile, watch: Watch) -> Verdict:
        """Launches the trainer and returns only when it and all its children are gone."""
        command = file.config.trainer.command or (sys.executable, "-P", "-m", "pipeline.training")
        scratch = Path(file.folder) / "tmp"  # a trainer that is killed cannot clear up after itself
        environment = {
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
            return self._watch(job, watch)
        finally:
            job.kill()
            shutil.rmtree(scratch, ignore_errors=True)

    def _watch(self, job: Job, watch: Watch) -> Verdict:
        budget, health = self.config.budget, self.config.health
        polled = time.monotonic()
        while True:
            code = job.wait(min(health.poll_seconds, 0.5))
            if (reason := self._ended()) is not None:
                return _end_in_order(job, reason)
            if code is not None:
                return self._verdict_at_exit(code, job, watch)
            if time.monotonic() - polled < health.poll_seconds:
                continue
            polled = time.monotonic()
            if (verdict := watch.poll()) is not None:
                return verdict
            self.display.progress(watch.latest)
            if watch.silence() > budget.hang_after_seconds:
                detail = {"silent for seconds": round(watch.silence()), "log_tail": _tail(job.log)}
                return Verdict(name="hang", evidence=(Evidence(rule="hang", detail=detail),))

    def _verdict_at_exit(self, code: int, job: Job, watch: Watch) -> Verdict:
        """Of a process that has ended by itself: what the metrics say comes before how it ended."""
        watch.poll()
        verdict, _ = watch.final()
        if verdict is not None:
            return verdict
        if code == 0 and watch.latest:
            return Verdict(name="healthy")
        tail = _tail(job.log)
        how: dict[str, Any] = {"signal": _signal_name(-code)} if code < 0 else {"exit code": code}
        if code == 0:
            how["but"] = "not a single metric was logged"
        out_of_memory = code == EXIT_OUT_OF_MEMORY or any("MemoryError" in line for line in tail[-3:])
        name = "out_of_memory" if out_of_memory else "crash"
        last_line = {"last line": tail[-1]} if tail else {}
        evidence = Evidence(rule="exit", detail={**how, **last_line, "log_tail": tail})
        return Verdict(name=name, evidence=(evidence,))  # type: ignore[arg-type]

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

    def _close(self, attempt: Attempt, watch: Watch, warnings: list[Evidence], seconds: float) -> None:
        latest = watch.latest
        self.store.log_metrics(attempt.run_id, {"cost/seconds": seconds}, step=int(max(0, watch.last_step)))
        if warnings:
            text = json.dumps([each.model_dump(mode="json", exclude={"values", "detail"}) for each in warnings])
            self.store.set_tags(attempt.run_id, {"ladder.warnings": text})
        newest = max(attempt.checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
        if newest is not None and attempt.verdict.name == "healthy":
            self.store.log_file(attempt.run_id, Path(newest.path), "policy")
            self.store.set_tags(attempt.run_id, {"ladder.policy": newest.path})
        self._log_pictures(attempt, watch, warnings)
        self.store.end_attempt(attempt.run_id, attempt.verdict)
        start = attempt.warm_start
        self._rows.append(
            {
                "attempt": attempt.number,
                "rung": attempt.rung,
                "verdict": attempt.verdict.name,
                "evidence": attempt.verdict.sentence,
                "from": f"episode {start.episode}" if start else "scratch",
                "episodes": int(latest.get("episodes", 0)),
                "steps": int(max(0, watch.last_step)),
                "minutes": round(seconds / 60, 1),
                "score": _rounded(latest.get("score_window")),
                "best score": _rounded(latest.get("best/score_window")),
                "run_id": attempt.run_id,
            }
        )
        self.display.attempt_ended(attempt, warnings, self._rows[-1])

    def _log_pictures(self, attempt: Attempt, watch: Watch, warnings: list[Evidence]) -> None:
        """A picture of each rule that fired, as `evidence/RULE.png`; one that cannot be drawn ends nothing."""
        from pipeline.health.plot import draw  # loads matplotlib, which a healthy experiment never needs

        rules = {rule.name: rule for rule in watch.rules}
        for each in (*attempt.verdict.evidence, *warnings):
            if each.rule not in rules:
                continue  # a crash, a hang: its evidence is the log
            rule = rules[each.rule]
            try:
                figure = draw(watch.history([rule]), rule, each)
                self.store.log_figure(attempt.run_id, figure, f"evidence/{rule.name}.png")
            except (ValueError, ArithmeticError) as error:
                self.display.say(f"no picture of {rule.name}: {error}")

    def _sum_up(self, outcome: str, reason: str, settled_rung: str | None) -> None:
        table = pd.DataFrame(self._rows)
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
        self.store.log_metrics(self.parent, metrics)
        title = f"**{outcome}** – {reason}"
        note = f"{title}\n\n{_markdown(self._rows)}" if self._rows else title
        self.store.end_parent(self.parent, outcome, settled_rung, table, note)
        self.display.experiment_ended(outcome, reason, self._rows, self._random_score)

    # Signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C, SIGTERM and a closed terminal ask for an end in good order; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(_signal: int, _frame: FrameType | None) -> None:
            self._asked_to_stop.set()

        # What somebody has asked to be ignored (`nohup`) stays ignored.
        asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        names = [name for name in asked if signal.getsignal(name) is not signal.SIG_IGN]
        before = {name: signal.signal(name, ask) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _error(error: BaseException) -> Verdict:
    return Verdict(name="crash", evidence=(Evidence(rule="orchestrator", detail={"error": str(error)}),))


def _end_in_order(job: Job, reason: str) -> Verdict:
    job.terminate()
    job.wait(GRACE_SECONDS)
    return Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail={"reason": reason}),))


def read_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """The checkpoints of an attempt's folder that are what their descriptions say; oldest first."""
    found = []
    for description in (folder / "checkpoints").glob("*.json"):
        path = description.with_suffix(".pt")
        with contextlib.suppress(OSError, ValueError, KeyError), path.open("rb") as file:
            info = json.loads(description.read_text())
            if hashlib.file_digest(file, "sha256").hexdigest() == info["sha256"]:
                found.append(Checkpoint(path=str(path), episode=info["episode"], step=info["step"]))
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def _tail(log: Path, lines: int = 20, size: int = 8192) -> list[str]:
    """The last lines of a log that may be long."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode(errors="replace").splitlines()[-lines:]
    return []


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _markdown(rows: list[dict[str, Any]]) -> str:
    columns = [column for column in rows[0] if column != "run_id"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = ["" if row[column] is None else str(row[column]).replace("|", "/") for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
