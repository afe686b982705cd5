"""`ladder status`: experiments and attempts, newest first. With `--follow`, again until nothing is RUNNING."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.compare.selection import main_metrics
from pipeline.compare.svg import number
from pipeline.health.readings import written
from pipeline.tracking.runs import FROM_SCRATCH, AttemptRun, LadderRun, ParentRun, Source
from pipeline.tracking.store import Store

_EVERY_SECONDS = 2.0
"""Between two looks at the store."""
_AGAIN_SECONDS = 60.0
"""Between two tables in a pipe, where nothing changes."""
_NARROW = 130
"""Terminals with fewer columns get fewer and shorter ones."""
_SHOWN = 3
"""Experiments that `--follow` shows: a terminal has few lines."""
_SHOWN_ONCE = 20
"""Experiments that a terminal shows otherwise, unless all are asked for. A pipe gets all."""


def status(
    store: Store,
    console: Console,
    *,
    everything: bool = False,
    follow: bool = False,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Prints the experiments of a store with their attempts.

    Args:
        everything: also on a terminal, which shows the newest otherwise.
        follow: prints them again until none of those shown is RUNNING: on a terminal in place, in a pipe when an
            attempt begins or ends, and every minute.
        before: called before each look at the store.
    """
    before()
    gc.freeze()  # MLflow makes hundreds of objects a run; with the modules among what is searched, that takes double
    if not follow:
        most = _SHOWN_ONCE if console.is_terminal and not everything else None
        parents = _experiments(store, None if most is None else most + 1)
        console.print(_table(parents[:most], narrow=_narrow(console)))
        if len(parents) > len(parents[:most]):
            console.print("… and older ones: ladder status --all", markup=False)
        return
    shown = _experiments(store, _SHOWN)
    said: list[tuple[str, str]] = []
    at = 0.0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            if console.is_terminal:
                live.update(_table(shown, narrow=_narrow(console)), refresh=True)
            elif (now := _state(shown)) != said or time.monotonic() > at + _AGAIN_SECONDS:
                said, at = now, time.monotonic()
                console.print(_table(shown, narrow=False))
            if not any(parent.is_running for _, parent, _ in shown):
                return
            time.sleep(_EVERY_SECONDS)
            before()
            shown = _experiments(store, _SHOWN)


_Experiment = tuple[str, ParentRun, list[AttemptRun]]


def _experiments(store: Store, most: int | None) -> list[_Experiment]:
    """Name, parent and attempts of each experiment and study, newest first; so many at most."""
    return [(name, parent, store.attempts(parent)) for name, parent in itertools.islice(store.newest(), most)]


def _state(parents: list[_Experiment]) -> list[tuple[str, str]]:
    """What makes a new table worth printing: the status of every run, and the warnings of those at work."""
    runs = [run for _, parent, nested in parents for run in (parent, *nested)]
    return [(run.run_id, f"{run.status} {_warned(run)} {_said(run)}") for run in runs]


def _said(run: LadderRun) -> str:
    return run.place.said if isinstance(run, AttemptRun) and run.place is not None else ""


def _narrow(console: Console) -> bool:
    return console.is_terminal and console.width < _NARROW


def _table(parents: list[_Experiment], *, narrow: bool) -> Table:
    """`narrow`: without the last columns, and with the first letters of the runs' ids, which all commands take."""
    table = Table(box=None, pad_edge=False)
    runs = [run for _, parent, nested in parents for run in (parent, *nested)]
    scripts = any(run.is_of_a_script for run in runs)
    at = "at" if scripts else "episodes"
    columns = ("experiment / attempt", "status", "verdict", at, "done", "score", "run", "steps/s", "from")
    for column in columns[:-2] if narrow else columns:
        table.add_column(column, overflow="fold")
    letters = 8 if narrow else None
    for name, parent, nested in parents:
        title = f"[bold]{escape(name)}[/] seed {'–' if parent.seed is None else parent.seed}"
        table.add_row(title, parent.status, parent.outcome or "–", "", "", "", parent.run_id[:letters])
        for each in nested:
            metrics, running = each.metrics, each.is_running
            cells = (
                f"  {each.number} {escape(each.label)}",
                each.status,
                each.verdict_name or _warned(each) or "–",
                _position(each) if scripts else f"{metrics.get('episodes', 0):.0f}",
                f"{metrics['progress']:.0%}" if running and "progress" in metrics else "",
                _script_score(each) if each.is_of_a_script else _score(each),
                each.run_id[:letters],
                f"{metrics['steps_per_second']:.0f}" if running and "steps_per_second" in metrics else "",
                _words(each.warm_start, each.counts),
            )
            table.add_row(*cells[: len(table.columns)])
            if (place := _place(each)) is not None:
                table.add_row(f"    [dim]{escape(place)}[/]")
    return table


def _place(run: AttemptRun) -> str | None:
    """What the trainer of an attempt waits for, or where it is at work, and since when; None: it needs no words."""
    place = run.place
    if place is None or not run.is_running:
        return None
    return f"{place.said}, since {place.since.astimezone():%H:%M:%S}"


def _warned(run: LadderRun) -> str:
    """The warnings of an attempt that has no verdict yet, in words; empty: there are none."""
    if not isinstance(run, AttemptRun) or not run.is_running or not (count := len(run.warnings)):
        return ""
    return f"{count} warning{'s' * (count != 1)}"


def _score(run: AttemptRun) -> str:
    """The windowed score, beside that of random play, and whether they are apart."""
    score, random = run.metrics.get("score_window"), run.metrics.get("random/score")
    if score is None:
        return "–"
    apart = {"above_random": ", above", "below_random": ", below"}.get(run.quality, "")
    return written(score) + (f" (random {written(random)}{apart})" if random is not None else "")


def _position(run: AttemptRun) -> str:
    """How far an attempt has come, in what it counts."""
    if episodes := run.metrics.get("episodes", 0):
        return f"episode {episodes:.0f}"
    return f"step {run.last_step:,}" if run.last_step else "–"


def _script_score(run: AttemptRun) -> str:
    """A script's score; without one, the first of its main metrics by name."""
    metrics = run.metrics
    if "score_window" in metrics:
        return number(metrics["score_window"])
    main = main_metrics(run.newest.keys())
    value = metrics.get(main[0]) if main else None
    return "–" if not main else f"{main[0]} {'not finite' if value is None else number(value)}"


def _words(start: Source | None, counts: str) -> str:
    """Where an attempt started."""
    return FROM_SCRATCH if start is None else f"{counts} {start.episode} of {start.run_id[:8]}"
