"""What a person sees of a study: a live panel on a terminal, time-stamped lines in a file or a pipe."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from optuna.trial import FrozenTrial
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pipeline.display import LINE_EVERY_SECONDS, Display
from pipeline.tuning.results import Count, eta, intervals, ranked, with_interval
from pipeline.tuning.study import StudyPlan


class StudyDisplay(Display):
    """The console, the log and the panel of an experiment's display, for a study."""

    def study_started(self, plan: StudyPlan, what: str, total: int, where: Sequence[str], log: Path) -> None:
        """`total`: trials in all, of which the panel shows how many are done."""
        self._plan_of_study, self._total = plan, total
        self._said_done = -1
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._file.addHandler(handler)
        self.say(f"{what} [bold]{escape(plan.name)}[/]")
        for line in (*where, f"this log {log}"):
            self.say(escape(line))
        if self.console.is_terminal:
            self._live = Live(Text("starting"), console=self.console, auto_refresh=False, transient=True)
            self._show(self._live.start)

    def study_progress(self, trials: Sequence[FrozenTrial], at_work: int, deadline: float) -> None:
        """`at_work`: workers alive. `deadline`: seconds since the epoch."""
        count = Count.of(trials)
        left = eta(trials, max(0, self._total - count.done), at_work)
        if left is not None:
            left = min(left, timedelta(seconds=max(0, round(deadline - time.time()))))
        best = self._best(trials)
        if self._live is not None:
            bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40), TextColumn("{task.fields[rest]}"))
            bar.add_task(
                "trials",
                total=self._total,
                completed=count.done,
                rest=f"{count.done} of {self._total}, ETA {left or '–'}",
            )
            facts = Group(bar, Text(f"{count}; {count.running} at work"), Text(f"best {best}"))
            panel = Panel(facts, title=f"study · {self._plan_of_study.name}", title_align="left", expand=False)
            self._show(partial(self._live.update, panel, refresh=True))
        due = count.done != self._said_done or time.monotonic() - self._last_line >= 3 * LINE_EVERY_SECONDS
        if due:
            self._last_line, self._said_done = time.monotonic(), count.done
            line = f"{count.done} of {self._total} trials ({count}), {count.running} at work, best {best}"
            self.say(escape(f"{line}, ETA {left or '–'}"), only_plain=True)

    def study_ended(self, lines: Sequence[str]) -> None:
        self._end_panel()
        for line in lines:
            self.say(escape(line))

    def _best(self, trials: Sequence[FrozenTrial]) -> str:
        objective = self._plan_of_study.study.objective
        best = ranked(trials, objective.direction)[:1]
        return (
            f"{objective.metric} {with_interval(best[0], intervals(trials))} (trial {best[0].number})" if best else "–"
        )
