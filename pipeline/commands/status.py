"""`ladder status`: experiments and attempts, newest first; with `--follow` until nothing runs any more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from pipeline.tracking.store import Run, Store

_EVERY_SECONDS = 2.0
_AGAIN_SECONDS = 60.0
"""In a pipe."""
_NARROW = 130
"""Columns of a terminal on which not everything has room."""
_SHOWN = 3
"""Experiments that are followed: a terminal has few lines."""


def status(store: Store, console: Console, *, follow: bool = False, before: Callable[[], None] = lambda: None) -> None:
    """Prints the experiments of a store with their attempts. `follow`: again as they change, until none is running.

    On a terminal the table is drawn anew in place; in a pipe it is printed again when an attempt begins or ends,
    and every minute. `before` is called before each look at the store.
    """
    before()
    parents = _experiments(store)
    if not follow:
        console.print(_table(parents, narrow=_narrow(console)))
        return
    said: list[tuple[str, str]] = []
    at = 0.0
    with Live(console=console, auto_refresh=False) as live:
        while True:
            shown = parents[:_SHOWN]
            if console.is_terminal:
                live.update(_table(shown, narrow=_narrow(console)), refresh=True)
            elif (now := _state(shown)) != said or time.monotonic() > at + _AGAIN_SECONDS:
                said, at = now, time.monotonic()
                console.print(_table(shown, narrow=False))
            if not any(parent.info.status == "RUNNING" for _, parent, _ in shown):
                return
            time.sleep(_EVERY_SECONDS)
            before()
            parents = _experiments(store)


_Experiment = tuple[str, Run, list[Run]]


def _experiments(store: Store) -> list[_Experiment]:
    """Name, parent and attempts of each, newest first."""
    found = []
    for experiment, runs in store.experiments():
        for parent in (each for each in runs if each.data.tags["ladder.kind"] in ("experiment", "study")):
            nested = [
                each
                for each in runs
                if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id
                and each.data.tags["ladder.kind"] == "attempt"  # a study has trials
            ]
            nested.sort(key=lambda each: int(each.data.tags["ladder.attempt"]))
            found.append((experiment.name, parent, nested))
    return found


def _state(parents: list[_Experiment]) -> list[tuple[str, str]]:
    return [(run.info.run_id, run.info.status) for _, parent, nested in parents for run in (parent, *nested)]


def _narrow(console: Console) -> bool:
    return console.is_terminal and console.width < _NARROW


def _table(parents: list[_Experiment], *, narrow: bool) -> Table:
    """`narrow`: less of it, and only the first letters of the runs' ids, which all commands take."""
    table = Table(box=None, pad_edge=False)
    columns = ("experiment / attempt", "status", "verdict", "episodes", "done", "score", "run", "steps/s", "from")
    for column in columns[:-2] if narrow else columns:
        table.add_column(column, overflow="fold")
    letters = 8 if narrow else None
    for name, parent, nested in parents:
        outcome = parent.data.tags.get("ladder.outcome", "–")
        row = (
            f"[bold]{escape(name)}[/] seed {parent.data.params.get('training.seed', '–')}",
            parent.info.status,
            outcome,
        )
        table.add_row(*row, "", "", "", parent.info.run_id[:letters])
        for each in nested:
            tags, metrics = each.data.tags, each.data.metrics
            running = each.info.status == "RUNNING"
            cells = (
                f"  {tags['ladder.attempt']} {escape(tags['ladder.rung'])}",
                each.info.status,
                tags.get("ladder.verdict", "–"),
                f"{metrics.get('episodes', 0):.0f}",
                f"{metrics['progress']:.0%}" if running and "progress" in metrics else "",
                _score(metrics),
                each.info.run_id[:letters],
                f"{metrics['steps_per_second']:.0f}" if running and "steps_per_second" in metrics else "",
                _source(tags["ladder.warm_start"]),
            )
            table.add_row(*cells[: len(table.columns)])
    return table


def _score(metrics: dict[str, float]) -> str:
    score, random = metrics.get("score_window"), metrics.get("random/score")
    if score is None:
        return "–"
    return f"{score:.1f}" + (f" (random {random:.1f})" if random is not None else "")


def _source(warm_start: str) -> str:
    """The tag `ladder.warm_start` in words."""
    if warm_start == "scratch":
        return warm_start
    start = json.loads(warm_start)
    return f"episode {start['episode']} of {start['run_id'][:8]}"
