"""Runs a command of the user's at each verdict, at warnings and at the end, with the facts as JSON on its input.

    notify:
      command: [curl, --silent, --data-binary, "@-", "https://ntfy.sh/my-ladder"]

Nothing that it does can harm the experiment. After some seconds it is ended with all that it has started. The log says
when it has failed. At a warning the experiment does not wait for it: a thread runs the command, one after another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fallbacks.ladder import Plan
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.callbacks.callback import Callback, ExperimentEnded, ExperimentStarted
from pipeline.health.verdict import Evidence
from pipeline.processes.environment import their_environment

PATIENCE_SECONDS = 10.0


class Notifier(Callback):
    """Runs the command; `complain` gets a line when that has failed."""

    def __init__(self, command: Sequence[str] | None, complain: Callable[[str], None]) -> None:
        self._command, self._complain = command, complain
        self._about: dict[str, Any] = {}
        self._attempt: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._aside = ThreadPoolExecutor(1, "notify")

    def experiment_started(self, event: ExperimentStarted) -> None:
        config = event.config
        self._nested = event.nested
        self._about = {"experiment": config.experiment.name, "seed": config.training.seed, "parent": event.parent}

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self._attempt = {"attempt": number, "rung": plan.label, "run_id": run_id}
        self._warned = set()

    def warning(self, evidence: Evidence) -> None:
        if self._command is None or evidence.rule in self._warned:  # once a rule, however many metrics it is about
            return
        self._warned.add(evidence.rule)
        facts = {"rule": evidence.rule, "metric": evidence.metric, "warning": evidence.sentence()}
        self._aside.submit(self.notify, "warning", self._about | self._attempt | facts)

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        self._await_warnings()
        self.notify("verdict", self._about | summary.row)

    def experiment_ended(self, event: ExperimentEnded) -> None:
        if not self._nested:
            end = {"outcome": event.outcome, "reason": event.reason, "settled_rung": event.settled_rung}
            end["quality"] = event.quality
            self._await_warnings()
            rows = {"attempts": [each.row for each in event.attempts]}
            self.notify("end", self._about | end | dict(event.metrics) | rows)

    def close(self) -> None:
        self._aside.shutdown(wait=False, cancel_futures=True)

    def _await_warnings(self) -> None:
        """Waits for the warnings before an event that comes after them, as long as one command may take."""
        done = threading.Event()
        self._aside.submit(done.set)
        done.wait(PATIENCE_SECONDS)

    def notify(self, event: str, facts: dict[str, Any]) -> None:
        """Runs the command once. `event`: verdict, warning or end."""
        if self._command is None:
            return
        content = json.dumps({"event": event, **facts}, default=str).encode()
        # A process that does not read its input must not keep us waiting, nor one that says too much: files, no pipes.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(content)
            given.seek(0)
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=given,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=their_environment(),
                )
            except (OSError, ValueError) as error:
                self._complain(f"notify.command could not be started: {error}")
                return
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._complain(f"notify.command took longer than {PATIENCE_SECONDS:g} s and was ended")
                return
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # and whatever it has left behind
                process.wait()
            if code != 0:
                said.seek(0)
                words = " ".join(said.read(2000).decode(errors="replace").split())
                self._complain(f"notify.command ended with exit code {code}: {words[:300] or 'it said nothing'}")
