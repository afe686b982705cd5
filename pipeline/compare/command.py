"""`ladder compare`: prints the tables, and with `--out` writes the page."""

from __future__ import annotations

import copy
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.attempt.atomic import write_atomically
from pipeline.compare.across import MIXED, of_comparisons
from pipeline.compare.frames import Comparison
from pipeline.compare.from_store import Memory, read
from pipeline.compare.moments import moment
from pipeline.compare.page import render
from pipeline.compare.scores import plain_interval, verdict_on_score
from pipeline.compare.sides import Sides, change_in_words, sides
from pipeline.compare.statistics import method
from pipeline.compare.target import by_rung, cost, cost_of_rung, to_score, to_target, with_target
from pipeline.compare.wording import tone, words
from pipeline.config import TrackingSection
from pipeline.tracking.store import Store

PAGE = "compare.html"
TABLE = "attempts.csv"
DIFFERENCES = "differences.json"
"""Beside the page, where two configurations are compared."""
Form = Literal["csv", "json"]
"""How the table of attempts is written for a program."""
_OF_ATTEMPTS = (
    "In brackets: 95 % interval of one policy's score, by Student's t over its last updates (three at least)."
)
COLOURS = {"good": "green", "wait": "yellow", "bad": "red"}
"""CSS class → colour on a terminal."""


def compare(
    store: Store,
    parents: Sequence[str],
    out: Path | None,
    console: Console,
    form: Form | None = None,
    target: float | None = None,
) -> None:
    """Prints the comparison; writes `out/compare.html`. Raises BadInput where there is no such run.

    `form`: only the table of attempts is printed, for a program to read, to the standard output; `console` gets the
    path of the page.
    `target`: the score whose cost is told; default as :func:`pipeline.compare.target.default_target`.
    """
    night = dataclasses.replace(read(store, parents), target=target)
    page = None if out is None else write_page(night, store, out)  # first: whoever reads the tables may leave early
    if form is None:
        show(night, console, store.root)
    else:
        sys.stdout.write(as_text(with_target(night, target), form))
    if page is not None:
        console.print(f"page {page}", soft_wrap=True, markup=False)


def as_text(attempts: pd.DataFrame, form: Form) -> str:
    """The frame `attempts` as CSV, or as a JSON list with an object for each; a cell of CSV may hold JSON.

    What is not known, or no number, is an empty cell, and null.
    """
    if form == "json":
        rows = json.loads(attempts.to_json(orient="records", date_format="iso", date_unit="s", double_precision=15))
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    flat = attempts.assign(
        started=attempts.started.map(lambda each: each.strftime("%Y-%m-%dT%H:%M:%SZ")),
        **{name: attempts[name].map(partial(json.dumps, ensure_ascii=False)) for name in ("changed", "not_stored")},
    )
    return str(flat.to_csv(index=False, lineterminator="\n"))


def log_page(store: Store, parent: str, complain: Callable[[str], None]) -> None:
    """Writes the page of one experiment to the tracking root, and logs it and its attempts as CSV on its parent run.

    It never fails; `complain` gets a line instead.
    """
    try:
        night, page = read(store, [parent]), store.root / PAGE  # where the root is gone, none is made in its place
        write_atomically(page, _rendered(night, store))
        store.log_file(parent, page)
        store.log_text(parent, as_text(with_target(night), "csv"), TABLE)
    except Exception as error:
        complain(f"the page {PAGE} could not be made: {type(error).__name__}: {error}")


def write_page(night: Comparison, store: Store, folder: Path) -> Path:
    """Writes the page as one file, whole or not at all. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, _rendered(night, store))
    if (both := sides(night)) is not None:
        write_atomically(folder / DIFFERENCES, json.dumps(both.as_json(), indent=2, ensure_ascii=False) + "\n")
    return folder / PAGE


def running_page(store: Store, parent: str) -> Callable[[], str]:
    """What makes the page of an experiment that runs. It asks a store that is away once, and waits for nothing."""
    asked = copy.copy(store)
    asked.patience, memory = None, Memory()
    return lambda: _rendered(read(asked, [parent], memory=memory), asked, running=parent)


def _rendered(night: Comparison, store: Store, running: str | None = None) -> str:
    settled = [run for run in night.experiments.settled_run if isinstance(run, str)]
    return render(night, {run: found for run in settled if (found := moment(store, run))}, running)


def show(night: Comparison, console: Console, root: Path) -> None:
    """Prints a table for each experiment, and one over all of them. `root`: the tracking root that they are under."""
    for row in night.experiments.itertuples():
        colour = COLOURS[tone(row.outcome)]
        on = f" on {row.settled_rung}" if row.outcome == "healthy" else ""
        seed = "–" if pd.isna(row.seed) else row.seed
        console.print(
            f"[bold]{escape(row.experiment)}[/] seed {seed}: [{colour}]{words(row.outcome)}[/]{on}, "
            f"{row.minutes:.1f} min, parent run {row.parent}",
            soft_wrap=True,
        )
        if row.reason and row.outcome not in ("healthy", "running"):
            console.print(row.reason, soft_wrap=True, markup=False)
        console.print(_attempts(night, row.parent))
        if np.isfinite(row.random):
            quality, kind = verdict_on_score(row)
            against = f"a random policy: {escape(plain_interval(row.random, row.random_low, row.random_high))}"
            if row.settled_run:
                against += f". [{COLOURS[kind]}]{quality}[/]"
            console.print(against, soft_wrap=True)
        console.print()
    both = sides(night)
    if night.attempts.score_interval.any():
        console.print(_OF_ATTEMPTS, markup=False, soft_wrap=True)
    if night.older:
        count = len(night.older)
        some = f"{count} older experiments that train" if count > 1 else "an older experiment that trains"
        typed = ["ladder", "compare", *(run[:8] for run in (*night.experiments.parent, *night.older))]
        typed += [f"tracking.root={root}"] if root.resolve() != Path(TrackingSection().root).resolve() else []
        said = f"left out: {some} the same with the same seed. To compare them: {shlex.join(typed)}"
        console.print(said, soft_wrap=True, markup=False)
    if len(night.experiments) > 1:
        _show_across(night, console, mixed=both is not None)
    if both is not None:
        _show_sides(both, console)


def _attempts(night: Comparison, parent: str) -> Table:
    """The attempts of one experiment; those of a script, with the columns that it has logged anything for."""
    attempts = night.attempts[night.attempts.parent == parent]
    script = bool(night.experiments.set_index("parent").script[parent])
    episodes = bool(attempts.episodes.any()) or not script
    steps = script and bool(attempts.steps.any())
    scores = bool(np.isfinite(attempts.score).any()) or not script
    left, right = ["attempt", "verdict", "from"], [*["to episode"] * episodes, *["to step"] * steps, "minutes"]
    found = to_target(night, night.target).loc[attempts.run_id]
    costs = bool(found.target_reached.notna().any())
    right += ["score"] * scores + [to_score(target) for target in found.target[:1] if costs]
    table = _table(*left, *right, "evidence", right=tuple(range(len(left), len(left) + len(right))))
    numbers = attempts.set_index("run_id").attempt
    for row in attempts.itertuples():
        start = "scratch"
        if isinstance(row.source, str):
            of = f"attempt {numbers[row.source]}" if row.source in numbers else row.source[:8]
            start = f"{row.counts} {row.source_episode} of {of}"
        cells = [f"{row.attempt} {escape(row.rung)}", f"[{COLOURS[tone(row.verdict)]}]{words(row.verdict)}[/]", start]
        cells += [str(row.episodes)] * episodes + [f"{row.steps:,}"] * steps + [f"{row.minutes:.1f}"]
        cells += [escape(plain_interval(row.score, row.score_low, row.score_high, fine=script))] * scores
        if costs:
            reached = found.loc[row.run_id]
            cells.append(cost(reached.target_reached, reached.steps_to_target, reached.minutes_to_target))
        table.add_row(*cells, escape(row.evidence))
    return table


def _show_across(night: Comparison, console: Console, *, mixed: bool) -> None:
    """Prints the statistics over experiments, whose unit is the run. `mixed`: they are of two configurations."""
    script = bool(night.experiments.script.all())
    scored = not script or bool(np.isfinite(night.attempts.score).any())
    heading = [f"score ({night.statistic} of those)"] * scored
    table = _table("rung", "attempts", "healthy", "minutes", "to the end", *heading, right=(1, 2, 3, 4, 5))
    for rung, row in night.rungs().iterrows():
        score = plain_interval(row.score, row.score_low, row.score_high, fine=script)
        table.add_row(
            escape(str(rung)), f"{row.attempts:.0f}", f"{row.healthy:.0f}", f"{row.minutes:.1f}",
            f"{row.to_the_end:.0f}", *[escape(score)] * scored,
        )  # fmt: skip
    settled = night.settled()
    for policy, row in settled.iterrows():
        score = plain_interval(row.score, row.score_low, row.score_high, fine=script)
        if np.isfinite(row.score):
            of = "runs" if script else "policies"
            table.add_row(f"{policy} {of}", f"{row.experiments:.0f}", "", "", "", escape(score))
    console.print(f"[bold]over {len(night.experiments)} experiments[/]{f'; {MIXED}' * mixed}")
    console.print(table)
    if scored:
        console.print(method(night.statistic), soft_wrap=True, markup=False)
    if len(costs := by_rung(night, night.target)):
        target = to_target(night, night.target).target.iloc[0]
        console.print(f"{to_score(target)}, median over the attempts that reached it, of all:")
        for rung, each in costs.iterrows():
            console.print(f"  {rung}  {cost_of_rung(each)}", soft_wrap=True, markup=False)
    better, told = night.improvement(), set()
    for row in better.itertuples():
        chance = f"{row.probability:.2f}"
        if np.isfinite(row.probability_low):
            chance += f" [{row.probability_low:.2f}, {row.probability_high:.2f}]"
        if row.probability >= 0.5 and (row.y, row.x) not in told:  # a tie once
            told.add((row.x, row.y))
            seeds = f", {row.seeds} shared seed{'s' * (row.seeds != 1)}" if row.seeds else ", no shared seed"
            console.print(escape(f"P({row.x} scores higher than {row.y}) = {chance}{seeds}"), soft_wrap=True)
    if len(better):
        console.print(of_comparisons(better), soft_wrap=True, markup=False)


def _show_sides(both: Sides, console: Console) -> None:
    """Prints what differs between two configurations, and what came of it."""
    console.print(
        f"\n[bold]side by side[/] A: {', '.join(both.parents[0])}; B: {', '.join(both.parents[1])}", soft_wrap=True
    )
    table = _table("", "A", "B", "B − A", right=())
    for each in both.facts:
        table.add_row(*map(escape, (each.name, each.a, each.b, change_in_words(each))))
    console.print(table)
    table = _table("changed key", "A", "B", right=())
    for key, (a, b) in both.changed.items():
        table.add_row(*map(escape, (key, a, b)))
    console.print(table)


def _table(*columns: str, right: tuple[int, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    return table
