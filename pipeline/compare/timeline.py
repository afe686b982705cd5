"""The ladder over wall-clock time: a bar for each attempt, the checkpoint that it started from, and how it ended."""

from __future__ import annotations

from html import escape

import pandas as pd

from pipeline.compare.charts import attempt_kind, line_kind
from pipeline.compare.frames import Comparison
from pipeline.compare.svg import number, ticks

_LANE = 54  # pixels, as in the stylesheet


def timeline(night: Comparison, attempts: pd.DataFrame, colours: dict[str, int]) -> str:
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
        hatch = f'<i style="width:{min(100, 100 * failing / max(row.minutes, 1e-9)):.1f}%"></i>' if failing else ""
        said = f"{row.minutes:.1f} min"
        # Words that begin far to the right would leave the page, so they end where the bar ends.
        place = f"left:{left}%" if left < 30 else f"left:0;text-align:right;right:{max(0.0, 100 - left - width):.2f}%"
        if row.source is not None and not pd.isna(row.source):
            from_attempt = f"attempt {_number(attempts, row.source)}" if row.source in order else "another experiment"
            said += f", from {row.counts} {row.source_episode:,} of {from_attempt}"
            if row.source in order:
                at = percent(_when(night, row.source, int(row.source_episode), row.counts))
                top, bottom = order[row.source] * _LANE + 29, index * _LANE + 13
                links.append(f'<path d="M{at},{top}V{bottom - 6}L{left + 0.25},{bottom}"/>')
        else:
            said += ", from scratch"
        lanes.append(
            f'<div class="lane"><span><b>{row.attempt}</b> {escape(row.rung)}'
            f'<small class="{tone(row.verdict)}">{escape(words(row.verdict))}</small></span>'
            f'<div class="track"><div class="bar" style="left:{left}%;width:{width}%;'
            f'background:var(--c{colours[row.rung]})" title="{escape(row.evidence)}">{hatch}</div>'
            f'<div class="said" style="{place}"><span>{escape(said)}</span></div></div></div>'
        )
    height = _LANE * len(attempts)
    overlay = (
        f'<svg class="links" style="height:{height}px" viewBox="0 0 100 {height}" preserveAspectRatio="none" '
        f'aria-hidden="true">{"".join(links)}</svg>'
    )
    marks = [mark for mark in ticks(0, end, 4) if percent(mark) < 80]  # leaves room for the label of the end
    shown = "".join(f'<b style="left:{percent(mark)}%">{number(mark)}</b>' for mark in marks)
    scale = f'<div class="scale">{shown}<b style="left:100%">{end:.1f} min</b></div>'
    return f'<div class="timeline">{"".join(lanes)}{overlay}{scale}</div>'


def legend(night: Comparison, attempts: pd.DataFrame) -> str:
    """HTML of the attempts' colours, or the rungs' where they are of several experiments.

    A click on an entry hides its curves in the charts of the same section.
    """
    several = attempts.parent.nunique() > 1
    items = ""
    for row in (attempts.drop_duplicates("rung") if several else attempts).itertuples():
        colour, *again = line_kind(night, row.run_id).split()
        of_attempt, of_rung = attempt_kind(night, row).split()
        hides, name = (of_rung, row.rung) if several else (of_attempt, f"{row.attempt} {row.rung}")
        looks = f'class="{" ".join(["swatch", *again])}" style="--of:var(--{colour});background:var(--{colour})"'
        box = f'<input type="checkbox" checked value="{hides}" name="{hides}{"" if several else f" {row.parent}"}">'
        items += f'<li><label title="hide or show">{box}<span {looks}></span><span>{escape(name)}</span></label></li>'
    return f'<ul class="legend">{items}</ul>'


def words(name: str) -> str:
    """A verdict or outcome as words."""
    return name.replace("_", " ")


def tone(verdict: str) -> str:
    """The CSS class of a verdict or outcome."""
    return {"healthy": "good", "compared": "good", "running": "wait", "interrupted": "wait"}.get(verdict, "bad")


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
