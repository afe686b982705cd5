"""What the user sees of a study: a live panel on a terminal, time-stamped lines in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from optuna.trial import FrozenTrial
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pipeline.callbacks.terminal import Terminal
from pipeline.tuning.results import TrialCount, eta, intervals, ranked, with_interval
from pipeline.tuning.study import StudyPlan


class StudyDisplay:
    """Prints the events of a study. On a terminal its progress is a live panel below the lines."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self.terminal = terminal or Terminal()
        self.say = self.terminal.say

    def study_started(self, plan: StudyPlan, what: str, total: int, where: Sequence[str], log: Path) -> None:
        """Prints what begins and where it is kept.

        Args:
            plan: the study's plan.
            what: the kind of work, `study` or `validation`.
            total: number of trials; the panel shows how many of them are done.
            where: further lines: budget, storage, MLflow run.
            log: file to which the lines are written too.
        """
        self._plan_of_study, self._total = plan, total
        self._said_done = -1
        self.terminal.log_to(log)
        self.say(f"{what} [bold]{escape(plan.name)}[/]")
        for line in (*where, f"this log {log}"):
            self.say(escape(line))
        self.terminal.open_panel(Text("starting"))

    def study_progress(self, trials: Sequence[FrozenTrial], at_work: int, deadline: float) -> None:
        """Updates the panel; prints a line when one is due or a trial has ended.

        Args:
            trials: all trials of the study.
            at_work: number of workers that are alive.
            deadline: seconds since the epoch; no trial begins after it.
        """
        count = TrialCount.of(trials)
        left = eta(trials, max(0, self._total - count.done), at_work)
        if left is not None:
            left = min(left, timedelta(seconds=max(0, round(deadline - time.time()))))
        best = self._best(trials)
        if self.terminal.is_live:
            bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40), TextColumn("{task.fields[rest]}"))
            bar.add_task(
                "trials",
                total=self._total,
                completed=count.done,
                rest=f"{count.done} of {self._total}, ETA {left or '–'}",
            )
            facts = Group(bar, Text(f"{count}; {count.running} at work"), Text(f"best {best}"))
            panel = Panel(facts, title=f"study · {self._plan_of_study.name}", title_align="left", expand=False)
            self.terminal.update_panel(panel)
        if self.terminal.line_is_due(factor=3) or count.done != self._said_done:
            self._said_done = count.done
            line = f"{count.done} of {self._total} trials ({count}), {count.running} at work, best {best}"
            self.say(escape(f"{line}, ETA {left or '–'}"), only_plain=True)

    def study_ended(self, lines: Sequence[str]) -> None:
        """Closes the panel and prints the results."""
        self.terminal.close_panel()
        for line in lines:
            self.say(escape(line))

    def _best(self, trials: Sequence[FrozenTrial]) -> str:
        objective = self._plan_of_study.study.objective
        best = ranked(trials, objective.direction)[:1]
        return (
            f"{objective.metric} {with_interval(best[0], intervals(trials))} (trial {best[0].number})" if best else "–"
        )
