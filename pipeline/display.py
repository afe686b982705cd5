"""What a person sees while an experiment runs: a live panel on a terminal, time-stamped lines in a file or a pipe."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from fallbacks.ladder import Attempt, Ladder, Plan
from pipeline.commands.preflight import preflight
from pipeline.config import PHASES, ExperimentConfig, difference
from pipeline.console import written
from pipeline.health.rule_sets import BANDS, Band
from pipeline.health.verdict import MEANINGS, Evidence
from pipeline.tracking.store import Store

LINE_EVERY_SECONDS = 20.0
_COLOURS = {"normal": "green", "between": "yellow", "abnormal": "red"}


class _Console(Console):
    """A console whose reader may go without ending the program, as Rich would."""

    def on_broken_pipe(self) -> None:
        raise


class _LogFile(logging.FileHandler):
    """A log that ends no experiment, and fills no terminal, when the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        del record


class Display:
    """Tells the story of one experiment. On a terminal the present attempt is a live panel below the lines."""

    def __init__(self, console: Console | None = None) -> None:
        # In a pipe or a file nothing is folded.
        self.console = console or _Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self._live: Live | None = None
        self._file = logging.Logger("ladder")
        self._last_line = 0.0
        self._random = ""
        self._first: tuple[float, float] | None = None  # progress and time at the attempt's first news

    # The story

    def experiment_started(self, config: ExperimentConfig, parent: str, store: Store) -> None:
        self._config = config
        log = store.root / "experiments" / f"{parent}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._file.addHandler(handler)
        rungs = " → ".join(rung if isinstance(rung, str) else rung.name for rung in config.ladder.rungs)
        self.say(
            f"experiment [bold]{escape(config.experiment.name)}[/] seed {config.training.seed}, parent run {parent}"
        )
        self.say(f"ladder {rungs}; rules {config.health.rules}; at most {config.budget.hours:g} h")
        self.say(f"store {escape(store.uri)}; this log {escape(str(log))}")
        if config.trainer.command is None:
            for item in preflight(Ladder(config).configs[0]):
                if not item.true:
                    self.say(f"[yellow]not as in the brief:[/] {item.name}: {escape(item.configured)}")

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self._plan, self._number, self._first = plan, number, None
        start = plan.warm_start
        source = f"from episode {start.episode} of run {start.run_id[:8]}" if start else "from scratch"
        self.say(f"[bold]attempt {number}: {plan.rung.name}[/] ({escape(plan.reason)}), {source}, run {run_id}")
        for key, (_, after) in difference(self._config, plan.config).items():
            self.say(f"  {key} = {escape(str(after))}")
        if self.console.is_terminal:
            self._live = Live(self._panel({}), console=self.console, auto_refresh=False, transient=True)
            self._show(self._live.start)

    def progress(self, latest: dict[str, float]) -> None:
        if self._live is not None:
            self._show(partial(self._live.update, self._panel(latest), refresh=True))
        if latest.get("episodes") is not None and time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self.say(escape(self._line(latest)), only_plain=True)

    def attempt_ended(self, attempt: Attempt, warnings: list[Evidence], row: dict[str, Any]) -> None:
        self._end_panel()
        verdict = attempt.verdict
        colour = "green" if verdict.name == "healthy" else "yellow" if verdict.name == "interrupted" else "red"
        interrupted = verdict.name == "interrupted" and bool(verdict.evidence)
        meaning = verdict.sentence if interrupted else MEANINGS[verdict.name]
        self.say(
            f"attempt {attempt.number}: [bold {colour}]{verdict.name}[/] – {escape(meaning)}; "
            f"episode {row['episodes']}, step {row['steps']}, {row['minutes']} min"
        )
        if verdict.evidence and not interrupted:
            self.say(f"  evidence: {escape(verdict.sentence)}")
        for line in verdict.evidence[0].detail.get("log_tail", [])[-5:] if verdict.evidence else []:
            self.say(f"  | {escape(line)}")
        for each in warnings:
            self.say(f"  [yellow]warning[/] {each.rule}: {escape(each.sentence())}")

    def experiment_ended(
        self, outcome: str, reason: str, rows: list[dict[str, Any]], random_score: dict[str, float] | None
    ) -> None:
        self._end_panel()
        self.say(f"[bold]{outcome}[/]: {escape(reason)}")
        if rows:
            table = Table(box=None, pad_edge=False)
            columns = [column for column in rows[0] if column not in ("run_id", "evidence")]
            for column in columns:
                table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
            for row in rows:
                table.add_row(*("–" if row[column] is None else str(row[column]) for column in columns))
            self._show(partial(self.console.print, table))
            for row in rows:
                self._file.info("  %s", ", ".join(f"{column} {row[column]}" for column in columns))
        if random_score:
            self.say(
                f"a random policy under the same step cap: {random_score['random/score']:.1f} "
                f"[{random_score['random/score_low']:.1f}, {random_score['random/score_high']:.1f}]",
                markup=False,
            )
        root = self._config.tracking.root
        at = "" if root == "mlruns" else f" ROOT={root}"
        self.say(f"compare the attempts: make compare{at}, make ui{at}", markup=False)

    def complain(self, what: str) -> None:
        """Of something that went wrong beside the experiment."""
        self.say(f"[yellow]warning[/] {escape(what)}")

    # Its means

    def say(self, text: str, *, only_plain: bool = False, markup: bool = True) -> None:
        """A line in the log file, and on the console (`only_plain`: not on a terminal, where the panel shows it)."""
        rendered = Text.from_markup(text) if markup else Text(text)
        self._file.info(rendered.plain)
        if not (only_plain and self.console.is_terminal):
            stamp = time.strftime("%H:%M:%S" if self.console.is_terminal else "%Y-%m-%d %H:%M:%S")
            self._show(partial(self.console.print, Text(f"{stamp} ", style="dim") + rendered, soft_wrap=True))

    def _end_panel(self) -> None:
        if self._live is not None:
            self._show(self._live.stop)
            self._live = None

    def _show(self, write: Callable[[], None]) -> None:
        """Writes to the console. One that is gone (a closed terminal or pipe) ends no experiment: the log goes on."""
        if not written(write, self.console.file):
            self._file.info("the terminal is gone; this log goes on")

    def _score(self, latest: dict[str, float]) -> str:
        if "random/score" in latest:
            low, high = latest["random/score_low"], latest["random/score_high"]
            self._random = f" (random {latest['random/score']:.1f} [{low:.1f}, {high:.1f}])"
        score = latest.get("score_window")
        return ("–" if score is None else f"{score:.1f}") + self._random

    def _eta(self, latest: dict[str, float]) -> str:
        progress, now = self._progress(latest), time.monotonic()
        if progress is None:
            return "–"
        if self._first is None:
            self._first = (progress, now)
        gained, seconds = progress - self._first[0], now - self._first[1]
        if gained <= 0:
            return "–"
        left = (1 - progress) * seconds / gained
        return str(timedelta(seconds=max(0, round(left))))

    def _progress(self, latest: dict[str, float]) -> float | None:
        """How much of the attempt is done; a trainer that does not say so may count its episodes."""
        if "episodes" in latest:
            return latest.get("progress", latest["episodes"] / self._plan.config.training.episodes)
        return latest.get("progress")

    def _line(self, latest: dict[str, float]) -> str:
        bands = ", ".join(_judged(band, latest) for band in BANDS if band.metric in latest)
        speed = f"{latest['steps_per_second']:.0f} steps/s, " if "steps_per_second" in latest else ""
        return (
            f"attempt {self._number} {self._plan.rung.name}, {_phase(latest)}, episode {latest['episodes']:.0f} of "
            f"{self._plan.config.training.episodes}, ETA {self._eta(latest)}, "
            f"{speed}score {self._score(latest)}{'; ' if bands else ''}{bands}"
        )

    def _panel(self, latest: dict[str, float]) -> RenderableType:
        training = self._plan.config.training
        bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40), TextColumn("{task.fields[rest]}"))
        bar.add_task(
            _phase(latest) if latest else "starting",
            total=1000,
            completed=round(1000 * (self._progress(latest) or 0.0)),
            rest=f"episode {latest.get('episodes', 0):.0f} of {training.episodes}, ETA {self._eta(latest)}",
        )
        facts = Table.grid(padding=(0, 2))
        facts.add_row("score", self._score(latest))
        facts.add_row("speed", f"{latest.get('steps_per_second', 0):.0f} steps/s")
        for band in BANDS:
            if band.metric in latest:
                colour = _COLOURS[band.judge(latest)]
                facts.add_row(band.label, f"[{colour}]{latest[band.metric]:.3f}[/] [dim]{band.describe(latest)}[/]")
        title = f"attempt {self._number} · {self._plan.rung.name}"
        return Panel(Group(bar, facts), title=title, title_align="left", expand=False)


def _judged(band: Band, latest: dict[str, float]) -> str:
    word = band.judge(latest)
    text = f"{band.label} {latest[band.metric]:.2f} {'tolerated' if word == 'between' else word}"
    return text if word == "normal" else f"{text} ({band.describe(latest)})"


def _phase(latest: dict[str, float]) -> str:
    phase = latest.get("phase")
    return PHASES[int(phase)] if phase is not None and phase in range(len(PHASES)) else "training"
