"""The comparison as one HTML file that needs no network, for screens in light and dark mode, phones and paper."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.compare import charts
from pipeline.compare.across import across
from pipeline.compare.cards import attempt_cards, cards_section, metrics_of
from pipeline.compare.costs import costs
from pipeline.compare.frames import Comparison
from pipeline.compare.live import RELOADS, note
from pipeline.compare.moments import Moment
from pipeline.compare.scores import plain_interval, verdict_on_score
from pipeline.compare.sides import section, sides
from pipeline.compare.svg import number
from pipeline.compare.template import fill, source
from pipeline.compare.timeline import legend, legend_of_metrics, timeline
from pipeline.compare.wording import tone, words
from pipeline.health.readings import written

_MOST_NAMES = 100
"""Names of metrics that are listed."""


class Part(NamedTuple):
    """One experiment."""

    html: Markup
    metrics: int = 0
    """How many can be hidden in one of its sections."""


class Fact(NamedTuple):
    """One of the figures at the head of an experiment."""

    name: str
    value: str
    more: str = ""
    tone: str = ""
    """CSS class of the value."""
    code: bool = False


def render(night: Comparison, moments: Mapping[str, Moment] | None = None, running: str | None = None) -> str:
    """The page, as HTML.

    Args:
        night: the experiments to compare.
        moments: the attempt's run id → what to show of a settled policy at play.
        running: parent run of the experiment that runs, and whose page is written again and again.
    """
    colours = charts.colours_of(night)
    both = sides(night)
    several = len(night.experiments) > 1
    now = datetime.now(UTC)
    experiments = [
        _experiment(night, row, colours, (moments or {}).get(str(row.settled_run)), several=several)
        for row in night.experiments.itertuples()
    ]
    page = fill(
        "page.html.j2",
        title=", ".join(dict.fromkeys(night.experiments.experiment)),
        colours=charts.COLOURS,
        expert_colours=charts.EXPERT_COLOURS,
        kinds=[
            *(f"a{each}" for each in sorted({*night.attempts.attempt})),
            *(f"r{index}" for index in range(len(colours))),
            *(f"m{index}" for index in range(max(each.metrics for each in experiments))),
        ],
        script=source("page.js"),
        reloads=RELOADS if running else "",
        live=note(running, f"{now:%Y-%m-%d %H:%M:%S} UTC") if running else "",
        across=across(night, colours, mixed=both is not None) if several else "",
        sides=section(both, night.called) if both is not None else "",
        experiments=[each.html for each in experiments],
        made=f"{now:%Y-%m-%d %H:%M} UTC",
        of_the_game=not night.experiments.script.any(),
    )
    return str(page)


def _experiment(night: Comparison, row: Any, colours: dict[str, int], moment: Moment | None, *, several: bool) -> Part:
    attempts = night.attempts[night.attempts.parent == row.parent]
    quality, kind = verdict_on_score(row)
    values = {
        "row": row,
        "several": several,
        "attempts": list(attempts.itertuples()),
        "judged": not row.script or bool(np.isfinite(row.random)),
        "quality": quality,
        "kind": kind,
        "best": _best(row, attempts),
        "cut": len(attempts) - int(attempts.to_the_end.sum()),
        "facts": _facts(row, attempts),
    }
    if attempts.empty:
        return Part(fill("experiment.html.j2", **values))
    shown = night.shown.get(row.parent)
    cards = attempt_cards(night, attempts, charts.MONITORED if not row.script or (shown and shown.bands) else ())
    page = fill(
        "experiment.html.j2",
        **values,
        timeline=timeline(night, attempts, colours),
        curves=_metrics(night, row.parent, attempts) if row.script else _score(night, attempts, colours),
        moment=None if row.script else moment,
        cards=cards_section(cards, script=row.script, where=row.parent),
        costs=costs(night, attempts, script=row.script),
    )
    return Part(page, max(len(metrics_of(cards)), len(shown.metrics) if shown else 0))


def _score(night: Comparison, attempts: pd.DataFrame, colours: dict[str, int]) -> Markup:
    """HTML of the score of this project's trainer. Empty: there is none."""
    curves = [charts.score_curves(night, attempts, colours, over) for over in ("step", "minutes")]
    drawn = [each for each in curves if each]
    if not drawn:
        return Markup()
    return fill("score.html.j2", ends=charts.ENDS, legend=legend(night, attempts), charts=drawn)


def _metrics(night: Comparison, parent: str, attempts: pd.DataFrame) -> Markup:
    """HTML of a script's main metrics, and the names of the rest. Empty: it has logged none."""
    shown = night.shown[parent]
    drawn = {name: charts.metric_curves(night, attempts, name, shown.names.get(name)) for name in shown.metrics}
    if not drawn and not shown.others:
        return Markup()
    return fill(
        "metrics.html.j2",
        ends=charts.ENDS,
        odd=len(night.not_finite[night.not_finite.run_id.isin(attempts.run_id)]) > 0,
        legend=legend(night, attempts),
        charts=[chart for chart in drawn.values() if chart],
        of_metrics=legend_of_metrics([name for name, chart in drawn.items() if chart], parent),
        never=[name for name, chart in drawn.items() if not chart],
        others=shown.others,
        most=_MOST_NAMES,
    )


def _best(row: Any, attempts: pd.DataFrame) -> tuple[str, str] | None:
    """Which rung scored best, of those that were trained to their end, and its score; None: none has a score."""
    whole = attempts[attempts.to_the_end & attempts.score.notna()]
    if whole.empty:
        return None
    best = whole.loc[whole.score.idxmax()]
    return str(best.rung), plain_interval(best.score, best.score_low, best.score_high, fine=bool(row.script))


def _facts(row: Any, attempts: pd.DataFrame) -> list[Fact]:
    failed = attempts[~attempts.verdict.isin(["healthy", "running"])].minutes.sum()
    on = f"on {row.settled_rung}" if row.outcome == "healthy" else ""
    facts = [
        Fact("outcome", words(row.outcome), on, tone(row.outcome)),
        Fact("score", plain_interval(row.score, np.nan, np.nan, fine=row.script),
             _bracket(row.score_low, row.score_high, fine=row.script)),
        Fact("random policy", plain_interval(row.random, np.nan, np.nan),
             _bracket(row.random_low, row.random_high, fine=False)),
        Fact("cost", f"{row.minutes:.1f} min", f"{failed:.1f} min of it in attempts that failed"),
    ]  # fmt: skip
    if row.script:
        facts = [each for each in facts if each.value != "–"]
        facts += _reached(attempts)
    if row.settled_run:
        run = row.settled_run[:8]
        if row.script:
            kept = attempts.set_index("run_id").checkpoint[row.settled_run]
            where = f"checkpoint {Path(kept).name}" if isinstance(kept, str) else "it has left no checkpoint"
            facts.append(Fact("run to take", run, row.model or where, code=True))
        else:
            facts.append(Fact("policy to take", run, row.model or "checkpoints in its folder", code=True))
    return facts


def _reached(attempts: pd.DataFrame) -> list[Fact]:
    """The fact of how many steps a script has trained; none where it counts no steps."""
    steps = int(attempts.trained_steps.sum())
    last = f"the last attempt to step {attempts.steps.iloc[-1]:,}" if steps else ""
    return [Fact("steps trained", f"{steps:,}", last)] if steps else []


def _bracket(low: float, high: float, *, fine: bool) -> str:
    said = number if fine else written
    return f"95 % interval {said(low)} – {said(high)}" if np.isfinite(low) else ""
