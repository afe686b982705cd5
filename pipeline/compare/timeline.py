"""The ladder over wall-clock time: a bar for each attempt, the checkpoint that it started from, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from pipeline.compare.charts import attempt_kind, line_kind
from pipeline.compare.frames import Comparison
from pipeline.compare.svg import number, ticks
from pipeline.compare.template import fill

_LANE = 54  # pixels, as in the stylesheet


class Lane(NamedTuple):
    """One attempt; lengths are in percent of the whole time."""

    attempt: int
    rung: str
    verdict: str
    evidence: str
    colour: int
    left: float
    width: float
    hatched: float
    """Share of the bar in percent, from the end, during which the attempt was failing."""
    said: str
    place: str
    """CSS of where the words stand."""


class Entry(NamedTuple):
    """One entry of a legend."""

    name: str
    box: str
    """What tells its checkbox from all others of the page."""
    hides: str
    """The CSS class that it hides."""
    colour: str = ""
    again: bool = False
    """Whether the colour is of another entry too, and the line dashed."""


def timeline(night: Comparison, attempts: pd.DataFrame, colours: dict[str, int]) -> Markup:
    """HTML of the timeline, with warm starts drawn across the lanes.

    It is HTML and not SVG, so that its words stay legible on a narrow page.
    """
    end = max(1e-6, float((attempts.begins + attempts.minutes).max()))

    def percent(minutes: float) -> float:
        return round(min(100.0, max(0.0, 100 * minutes / end)), 2)

    lanes, links = [], []
    order = {run: index for index, run in enumerate(attempts.run_id)}
    for index, row in enumerate(attempts.itertuples()):
        left, width = percent(row.begins), percent(row.minutes)
        failing = _failing_minutes(night, row.run_id, row.begins + row.minutes)
        said = f"{row.minutes:.1f} min"
        # Words that begin far to the right would leave the page, so they end where the bar ends.
        right = max(0.0, 100 - left - width)
        place = f"left:{left}%;right:0" if left < 30 else f"left:0;text-align:right;right:{right:.2f}%"
        if row.source is not None and not pd.isna(row.source):
            from_attempt = f"attempt {_number(attempts, row.source)}" if row.source in order else "another experiment"
            said += f", from {row.counts} {row.source_episode:,} of {from_attempt}"
            if row.source in order:
                at = percent(_when(night, row.source, int(row.source_episode), row.counts))
                top, bottom = order[row.source] * _LANE + 29, index * _LANE + 13
                links.append(f"M{at},{top}V{bottom - 6}L{left + 0.25},{bottom}")
        else:
            said += ", from scratch"
        hatched = min(100, 100 * failing / max(row.minutes, 1e-9))
        lanes.append(
            Lane(row.attempt, row.rung, row.verdict, row.evidence, colours[row.rung], left, width, hatched, said, place)
        )
    marks = [(percent(mark), number(mark)) for mark in ticks(0, end, 4)]
    return fill(
        "timeline.html.j2",
        lanes=lanes,
        links=links,
        height=_LANE * len(attempts),
        marks=[each for each in marks if each[0] < 80],  # leaves room for the label of the end
        end=end,
    )


def legend(night: Comparison, attempts: pd.DataFrame) -> Markup:
    """HTML of the attempts' colours, or the rungs' where they are of several experiments.

    A click on an entry hides its curves in the charts of the same section.
    """
    several = attempts.parent.nunique() > 1
    entries = []
    for row in (attempts.drop_duplicates("rung") if several else attempts).itertuples():
        colour, *again = line_kind(night, row.run_id).split()
        of_attempt, of_rung = attempt_kind(night, row).split()
        if several:
            entries.append(Entry(row.rung, of_rung, of_rung, colour, bool(again)))
        else:
            name = f"{row.attempt} {row.rung}"
            entries.append(Entry(name, f"{of_attempt} {row.parent}", of_attempt, colour, bool(again)))
    return fill("legend.html.j2", entries=entries, kind="")


def legend_of_metrics(names: Sequence[str], where: str) -> Markup:
    """HTML of the metrics that a section shows; a click on one hides what has its CSS class there, `m` and its index.

    Empty where there is but one. `where` tells the section from others of the page.
    """
    if len(names) < 2:
        return Markup()
    entries = [Entry(name, f"{name} {where}", f"m{index}") for index, name in enumerate(names)]
    return fill("legend.html.j2", entries=entries, kind="metrics")


def _number(attempts: pd.DataFrame, run: str) -> int:
    return int(attempts.set_index("run_id").attempt[run])


def _when(night: Comparison, run: str, number: int, counts: str) -> float:
    """Minutes from the parent's start until an attempt had finished so many episodes or steps."""
    if counts == "episode":
        curve = night.history(run, "episodes")
        reached = curve[curve.value >= number]
    else:
        curve = night.metrics[night.metrics.run_id == run].sort_values("step")
        reached = curve[curve.step >= number]
    return float((reached if len(reached) else curve.tail(1)).minutes.min()) if len(curve) else 0.0


def _failing_minutes(night: Comparison, run: str, end: float) -> float:
    """Minutes from the onset of an attempt's failure to its end; 0 if there is no onset."""
    verdict = night.verdicts.get(run)
    onsets = [each.onset_step for each in verdict.evidence if each.onset_step is not None] if verdict else []
    if not onsets:
        return 0.0
    rows = night.metrics[(night.metrics.run_id == run) & (night.metrics.step >= min(onsets))]
    return max(0.0, end - float(rows.minutes.min())) if len(rows) else 0.0
