"""What a person sees while an experiment runs: a live panel on a terminal, time-stamped lines in a file or a pipe."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from fallbacks.ladder import Plan
from pipeline.attempt.folder import experiment_log
from pipeline.attempt.record import TO_THE_END, Attempt, AttemptSummary, best_of
from pipeline.callbacks.callback import Callback, ExperimentEnded, ExperimentStarted
from pipeline.callbacks.notes import known_columns
from pipeline.callbacks.script_metrics import ScriptMetrics
from pipeline.callbacks.terminal import Terminal
from pipeline.compare.command import COLOURS, PAGE
from pipeline.compare.scores import sentence_of
from pipeline.compare.svg import number
from pipeline.config import TrainingSection, difference
from pipeline.health.phase import Phase
from pipeline.health.readings import interval, written
from pipeline.health.rule_sets import BANDS, Band
from pipeline.health.verdict import Evidence
from pipeline.preflight import accepted, own_first, preflight

_LONGEST_ETA_SECONDS = 366 * 24 * 3600.0
_COLOURS = {"normal": "green", "between": "yellow", "abnormal": "red"}


class Display(Callback):
    """Tells the story of one experiment. On a terminal the present attempt is a live panel below the lines."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self.terminal = terminal or Terminal()
        self._random = ""
        self._done = ""  # what was said of the attempt's end, whose trainer is still at work
        self._first: tuple[float, float] | None = None  # progress and time at the attempt's first news
        self._script: ScriptMetrics | None = None  # of the present attempt; None: its trainer is this project's

    # The story

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._config = config = event.config
        say, log = self.terminal.say, experiment_log(event.root, event.parent)
        self.terminal.log_to(log)
        rungs = " → ".join(rung if isinstance(rung, str) else rung.name for rung in config.ladder.rungs)
        say(
            f"experiment [bold]{escape(config.experiment.name)}[/] seed {config.training.seed}, "
            f"parent run {event.parent}"
        )
        many = config.ladder.remedies
        how = f", {many} remed{'y' if many == 1 else 'ies'} a rung" if many else ""
        if config.ladder.compares:
            how = f", each of the {len(config.ladder.rungs)} trained to its end"
        say(f"ladder {rungs}{how}; rules {config.health.rules}; at most {config.budget.hours:g} h")
        say(f"store {escape(event.uri)}; this log {escape(str(log))}")
        if not event.nested:
            say(f"page {escape(str(event.root / PAGE))}, written anew about every minute")
        if config.trainer.command is None:
            on_purpose = accepted(config)
            for item in preflight(own_first(config)):
                if item.differs:
                    how = "on purpose not" if item.key in on_purpose else "not"
                    say(f"[yellow]{how} as in the brief:[/] {item.name}: {escape('; '.join(item.differs))}")
                for words in item.cut_short:
                    say(f"[yellow]too short for the brief's schedule:[/] {item.name}: {escape(words)}")

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self._plan, self._number, self._first, self._random, self._done = plan, number, None, "", ""
        self._script = ScriptMetrics(plan.config) if plan.config.trainer.command is not None else None
        start, say = plan.warm_start, self.terminal.say
        counts = plan.config.trainer.counts
        source = f"from {counts} {start.episode} of run {start.run_id[:8]}" if start else "from scratch"
        place = f", {where}" if (where := self._rung_of()) and not plan.reason.startswith(where) else ""
        say(f"[bold]attempt {number}: {plan.label}[/] ({escape(plan.reason)}{place}), {source}, run {run_id}")
        for key, (_, after) in difference(self._config, plan.config).items():
            say(f"  {key} = {'not set' if after is None else escape(str(after))}")
        self.terminal.open_panel(self._panel({}))

    def progress(self, latest: Mapping[str, float]) -> None:
        if self.terminal.is_live:
            self.terminal.update_panel(self._panel(latest))
        known = {"progress", "episodes", "score_window"} & latest.keys()
        if not known and not (self._script and self._script.values(latest)):
            return
        done = self._where(latest) if self._is_done(latest) else ""
        if (done and done == self._done) or not self.terminal.line_is_due():
            return
        self._done = done
        self.terminal.say(escape(self._line(latest)), only_plain=True)

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        self.terminal.close_panel()
        verdict, say = attempt.verdict, self.terminal.say
        colour = "green" if verdict.name == "healthy" else "yellow" if verdict.name == "interrupted" else "red"
        interrupted = verdict.name == "interrupted" and bool(verdict.evidence)
        meaning = verdict.sentence if interrupted else verdict.meaning(script=self._script is not None)
        where = f"episode {summary.episodes}, " if self._counts_episodes(summary.episodes) else ""
        if summary.steps or self._script is None:
            where += f"step {summary.steps}, "
        say(
            f"attempt {attempt.number}: [bold {colour}]{verdict.name}[/] – {escape(meaning)}; "
            f"{where}{summary.minutes} min"
        )
        if verdict.evidence and not interrupted:
            say(f"  evidence: {escape(verdict.sentence)}")
        for line in [line for each in verdict.evidence for line in each.detail.get("log_tail", [])[-5:]]:
            say(f"  | {escape(line)}")
        if self._script is not None and verdict.name == "healthy" and attempt.checkpoints:
            say(f"  newest checkpoint: {escape(attempt.checkpoints[-1].path)}")

    def warning(self, evidence: Evidence) -> None:
        self.terminal.say(f"  [yellow]warning[/] {evidence.rule}: {escape(evidence.sentence())}")

    def experiment_ended(self, event: ExperimentEnded) -> None:
        self.terminal.close_panel()
        say = self.terminal.say
        compares = self._config.ladder.compares
        quality = quality_markup(event.quality)
        say(f"[bold]{event.outcome}[/]: {escape(event.reason)}{'' if compares else quality}")
        if event.attempts:
            self._table(event.attempts)
        if compares and (best := best_of(event.attempts)) is not None:
            say(f"best score of those trained to the end: [bold]{escape(best.rung)}[/], {best.score}{quality}")
        if random := interval(event.random_score or {}, "random/score"):
            say(f"a random policy under the same step cap: {random}", markup=False)
        root = self._config.tracking.root
        at = "" if root == "mlruns" else f" {shlex.quote(f'ROOT={root}')}"
        say(f"compare the attempts: make compare{at}, make ui{at}", markup=False)
        if event.resume is not None:
            say(f"go on with it: {event.resume}", markup=False)

    def message(self, text: str, *, error: bool = False) -> None:
        self.terminal.say(f"[red]{escape(text)}[/]" if error else escape(text))

    def close(self) -> None:
        self.terminal.close()

    # Its means

    def _table(self, attempts: tuple[AttemptSummary, ...]) -> None:
        rows = [each.row for each in attempts]
        table = Table(box=None, pad_edge=False)
        columns = [column for column in rows[0] if column not in ("run_id", "evidence")]
        known = known_columns(rows, columns)
        if self._config.trainer.command is not None:
            columns = known
        columns = [column for column in columns if column != TO_THE_END or column in known]
        for column in columns:
            table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
        for row in rows:
            table.add_row(*("–" if row[column] is None else str(row[column]) for column in columns))
            self.terminal.log(", ".join(f"{column} {row[column]}" for column in columns))
        self.terminal.print(table)

    def _rung_of(self) -> str:
        """Which of the rungs it is at, where each is trained to its end; else empty."""
        names = [rung if isinstance(rung, str) else rung.name for rung in self._config.ladder.rungs]
        if not self._config.ladder.compares:
            return ""
        return f"rung {names.index(self._plan.rung.name) + 1} of {len(names)}"

    def _facts(self, latest: Mapping[str, float]) -> list[tuple[str, str]]:
        """What is known of a script: score, speed and its main metrics."""
        assert self._script is not None
        facts = []
        if "score_window" in latest:
            facts.append(("score", self._score(latest)))
        if "steps_per_second" in latest:
            facts.append(("speed", f"{latest['steps_per_second']:.0f} steps/s"))
        return [*facts, *self._script.values(latest)]

    def _score(self, latest: Mapping[str, float]) -> str:
        if random := interval(latest, "random/score"):
            self._random = f" (random {random})"
        score = latest.get("score_window")
        if self._script is not None and score is not None:
            return number(score) + self._random
        return ("–" if score is None else written(score)) + self._random

    def _eta(self, latest: Mapping[str, float]) -> str:
        progress, now = self._progress(latest), time.monotonic()
        if progress is None:
            return "–"
        if self._first is None:
            self._first = (progress, now)
        gained, seconds = progress - self._first[0], now - self._first[1]
        if gained <= 0:
            return "–"
        left = (1 - progress) * seconds / gained
        return str(timedelta(seconds=max(0, round(left)))) if left < _LONGEST_ETA_SECONDS else "–"

    def _progress(self, latest: Mapping[str, float]) -> float | None:
        """How much of the attempt is done; a trainer that does not say so may count its episodes."""
        done = latest.get("progress")
        if done is None and "episodes" in latest and self._has_a_length():
            done = latest["episodes"] / self._plan.config.training.episodes
        return None if done is None else min(1.0, done)

    def _is_done(self, latest: Mapping[str, float]) -> bool:
        """Whether the training has come to its end, and its process has not."""
        return self._progress(latest) == 1.0

    def _has_a_length(self) -> bool:
        """Whether `training.episodes` says how long the training is: a script may count episodes without an end."""
        config = self._plan.config
        return config.trainer.command is None or config.training.episodes != TrainingSection().episodes

    def _line(self, latest: Mapping[str, float]) -> str:
        if not self._has_bands():
            facts = [f"{name} {value}" for name, value in self._facts(latest)]
            where = self._where(latest)
            begin = f"attempt {self._number} {self._plan.label}"
            return ", ".join([begin, _phase(latest), *([where] if where else []), *facts])
        bands = ", ".join(_judged(band, latest) for band in BANDS if band.metric in latest)
        speed = f"{latest['steps_per_second']:.0f} steps/s, " if "steps_per_second" in latest else ""
        return (
            f"attempt {self._number} {self._plan.label}, {_phase(latest)}, {self._where(latest)}, "
            f"{speed}score {self._score(latest)}{'; ' if bands else ''}{bands}"
        )

    def _where(self, latest: Mapping[str, float]) -> str:
        """How far it is, and how long it still takes, as far as either is known."""
        config, parts, done = self._plan.config, [], self._is_done(latest)
        if self._counts_episodes(latest.get("episodes")):
            end = f" of {config.training.episodes}" if self._has_a_length() and not done else ""
            parts.append(f"episode {latest.get('episodes', 0):.0f}{end}")
        elif (progress := self._progress(latest)) is not None:
            parts.append(f"{progress:.0%}")
        if done:
            awaits = self._script is None and "random/score" not in latest
            parts.append(f"trained to the end{', awaiting the random baseline' if awaits else ''}")
        elif self._script is None or (self._progress(latest) is not None and self._eta(latest) != "–"):
            parts.append(f"ETA {self._eta(latest)}")
        return ", ".join(parts)

    def _has_bands(self) -> bool:
        """Whether the metrics are meant by the bands of the brief."""
        return self._script is None or self._plan.config.health.rules != "generic"

    def _counts_episodes(self, episodes: float | None) -> bool:
        return bool(episodes) or self._plan.config.trainer.command is None

    def _panel(self, latest: Mapping[str, float]) -> RenderableType:
        bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=40), TextColumn("{task.fields[rest]}"))
        bar.add_task(
            _phase(latest) if latest else "starting",
            total=1000,
            completed=round(1000 * (self._progress(latest) or 0.0)),
            rest=self._where(latest),
        )
        facts = Table.grid(padding=(0, 2))
        if self._script is not None:
            for name, value in self._facts(latest):
                facts.add_row(escape(name), escape(value))
        else:
            facts.add_row("score", self._score(latest))
            facts.add_row("speed", f"{latest.get('steps_per_second', 0):.0f} steps/s")
        for band in BANDS if self._has_bands() else ():
            if band.metric in latest:
                colour = _COLOURS[band.judge(latest)]
                facts.add_row(band.label, f"[{colour}]{latest[band.metric]:.3f}[/] [dim]{band.describe(latest)}[/]")
        title = " · ".join(filter(None, [f"attempt {self._number}", self._plan.label, self._rung_of()]))
        return Panel(Group(bar, facts), title=title, title_align="left", expand=False)


def quality_markup(name: str) -> str:
    """Markup that is added to a good end; empty where nothing is known."""
    if name not in ("above_random", "as_random", "below_random"):
        return ""
    sentence, tone = sentence_of(name)
    return f"; [{COLOURS[tone]}]{sentence[0].lower()}{sentence[1:]}[/]"


def _judged(band: Band, latest: Mapping[str, float]) -> str:
    word = band.judge(latest)
    text = f"{band.label} {latest[band.metric]:.2f} {'tolerated' if word == 'between' else word}"
    return text if word == "normal" else f"{text} ({band.describe(latest)})"


def _phase(latest: Mapping[str, float]) -> str:
    phase = Phase.logged(latest.get("phase"))
    return "training" if phase is None else phase.key
