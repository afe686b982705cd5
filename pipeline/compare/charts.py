"""The page's charts; each function draws one SVG from the frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.compare.axis import SQUEEZED, axis_of
from pipeline.compare.frames import Comparison, points
from pipeline.compare.statistics import share_of
from pipeline.compare.svg import Chart, number
from pipeline.environments.names import SITUATIONS
from pipeline.health.names import SCORES, has_word
from pipeline.health.phase import Phase
from pipeline.health.rule_sets import BANDS, Band
from pipeline.health.verdict import Evidence

Colours = Mapping[str, int]
"""Rung → index of its colour."""
COLOURS = 8
"""Number of colours for rungs in the stylesheet, --c0 … --c7. They repeat when they are used up."""
EXPERT_COLOURS = 6
"""Those for experts, --e0 … --e5."""
ENDS = "A cross: cut short. A dot: trained to its end, or still running."
"""What the marks at the ends of curves mean."""
LOAD = "load of the experts"
"""Title of the chart :func:`expert_load`."""
_SQUEEZED_SCORES = 1000.0
"""Scores grow by orders of magnitude while all is well, and are compared as they are."""
MONITORED = tuple(band for band in BANDS if band.metric != "expert_usage_min")
"""The bands that :func:`monitored` draws; the load of the experts has a chart of its own."""
_DRAWN = tuple(band.metric for band in MONITORED)


def score_curves(night: Comparison, attempts: pd.DataFrame, colours: Colours, over: str) -> Markup | None:
    """Chart of every attempt's windowed score over `step` or `minutes`, with the random baseline; None: no score."""
    curves = {run: night.running_score(run) for run in attempts.run_id}
    curves = {run: curve for run, curve in curves.items() if len(curve)}
    if not curves:
        return None
    everything = pd.concat(curves.values())
    parents = night.experiments[night.experiments.parent.isin(attempts.parent)]
    random = parents[["random", "random_low", "random_high"]].mean()
    high = np.nanmax([everything.value.max(), random.random_high])
    low = min(0.0, everything.value.min())
    title, unit = ("over environment steps", "steps") if over == "step" else ("over wall-clock time", "min")
    x = (0.0 if over == "minutes" else min(0.0, everything[over].min()), float(everything[over].max()))
    chart = Chart(f"Score {title}", x, (low, 1.08 * high), size=(480, 250), x_label=unit)
    if np.isfinite(random.random):
        if np.isfinite([random.random_low, random.random_high]).all():
            chart.area(x, [random.random_low] * 2, [random.random_high] * 2, "random", "random policy, 95 % interval")
        chart.level(random.random, "random-line", f"random policy: {random.random:.1f}")
        chart.text(x[0] + 0.01 * (x[1] - x[0]), random.random + 0.02 * high, "random")
    for row in attempts[attempts.run_id.isin(curves)].itertuples():
        curve, kind = curves[row.run_id], f"c{colours[row.rung]}"
        label = f"seed {row.seed}, " if attempts.parent.nunique() > 1 else ""
        says = f"{label}attempt {row.attempt} {row.rung}: {row.verdict}, {curve.value.iloc[-1]:.1f} at the end"
        end = float(curve[over].iloc[-1]), float(curve.value.iloc[-1])
        with chart.group(attempt_kind(night, row)):
            chart.line(curve[over].to_numpy(), curve.value.to_numpy(), kind, says)
            _end(chart, row, end, kind, says)
    return chart.render()


def profiles(night: Comparison, colours: Colours) -> Markup | None:
    """Chart of each rung's performance profile: the share of its runs above a score, with the band of its intervals.

    None: no rung has two runs that were trained to their end.
    """
    found = night.profiles()
    found = found[found.runs > 1]
    if found.empty or found.score.nunique() < 2:
        return None
    low, high = float(found.score.min()), float(found.score.max())
    room = 0.05 * (high - low)
    chart = Chart(
        "Share of runs above a score", (low - room, high + room), (0.0, 1.0), size=(480, 250), x_label="score"
    )
    for rung, each in found.groupby("rung", sort=False):
        kind = f"c{colours[str(rung)]}"
        # A share changes at the score of a run: a step to the left of it, and from it on the next.
        x = np.repeat([low - room, *each.score, high + room], 2)[1:-1]
        first = share_of(np.ones(int(each.runs.iloc[0])))
        share, below, above = (
            np.repeat([start, *each[name]], 2)
            for start, name in zip(first, ("share", "share_low", "share_high"), strict=True)
        )
        says = f"{rung}: {each.runs.iloc[0]} runs"
        chart.area(x.tolist(), below.tolist(), above.tolist(), f"band {kind}", f"{says}, 95 % at each score")
        chart.line(x, share, kind, says)
    return chart.render()


def _end(chart: Chart, row: Any, place: tuple[float, float], kind: str, says: str) -> None:
    """Marks the end of an attempt's curve, as :data:`ENDS` explains. `row`: its row of `Comparison.attempts`."""
    if row.to_the_end or row.verdict == "running":
        chart.dot(*place, kind, says)
    else:
        chart.cross(*place, says)


def monitored(night: Comparison, run: str, band: Band, steps: tuple[float, float], top: float) -> Markup | None:
    """Chart of one monitored metric of one attempt, with its normal band, its limits and the failing window.

    None if the attempt did not log the metric.

    Args:
        night: the experiments to compare.
        run: the attempt's run id.
        band: the metric with its normal band and its limits.
        steps: range of the horizontal axis.
        top: largest value of this metric in all attempts that are shown, so that their axes are the same.
    """
    curve = night.history(run, band.metric)
    if curve.empty:
        return None
    log = band.metric == "gradient_norm"
    low = max(1e-2, min(0.5, float(curve.value[curve.value > 0].min()) if (curve.value > 0).any() else 0.5))
    high = max(top * 1.1, band.abnormal[1] * 1.5 if log else 1.0)
    chart = Chart(band.label, steps, (low if log else 0.0, high), x_label="steps", log=log)
    _normal(chart, night, run, band, curve, low if log else 0.0, high)
    for limit in band.abnormal:
        if 0 < limit < (high if log else 1.0):
            chart.level(limit, "limit", f"abnormal beyond {limit:.3g}")
    _failure(chart, night, run, band.metric, curve)
    return chart.render()


def _normal(
    chart: Chart, night: Comparison, run: str, band: Band, curve: pd.DataFrame, bottom: float, top: float
) -> None:
    """Draws the normal band as it applies at each step: some bounds hold only under conditions on other metrics."""
    needed = {name for name, _ in band.upper_counts_when + band.lower_counts_when}
    others = {name: night.history(run, name).set_index("step").value for name in needed}
    bounds = []
    for step in curve.step:
        now = {name: float(values[step]) for name, values in others.items() if step in values.index}
        low, high = band.bounds(now)
        bounds.append((bottom if low is None else max(low, bottom), top if high is None else min(high, top)))
    corners = [
        index
        for index, each in enumerate(bounds)
        if index in (0, len(bounds) - 1) or not bounds[index - 1] == each == bounds[index + 1]
    ]
    lows, highs = zip(*(bounds[index] for index in corners), strict=True)
    chart.area(curve.step.iloc[corners].tolist(), lows, highs, "normal", "normal here")


def other_evidence(night: Comparison, run: str, evidence: Evidence, drawn: Collection[str] = _DRAWN) -> Markup | None:
    """Chart of the metric of an evidence; None if it is among those that are `drawn`, or has no finite value."""
    if evidence.metric is None or evidence.metric in drawn:
        return None
    curve = night.whole_history(run, evidence.metric)
    values = curve.value[np.isfinite(curve.value)].to_numpy()
    if not len(values):
        return None
    limit = re.match(r"[<>] (-?[0-9.]+(?:e[+-]?[0-9]+)?)", evidence.threshold)
    bounds = [float(limit[1])] if limit else []
    axis = axis_of(np.array([*values, *bounds]))
    last = max(int(curve.step.max()), evidence.detection_step or 0)  # values that are not finite have no place here
    chart = Chart(
        evidence.metric, (curve.step.min(), last), (axis.low, axis.high), x_label="steps", log=axis.log,
        linear=axis.linear,
    )  # fmt: skip
    for bound in bounds:
        chart.level(bound, "limit", evidence.threshold)
    _failure(chart, night, run, evidence.metric, curve)
    _not_finite(chart, curve, evidence.metric)
    return chart.render()


def metric_curves(night: Comparison, attempts: pd.DataFrame, metric: str, name: str | None = None) -> Markup | None:
    """Chart of one metric of all attempts over the steps; None if no attempt has a finite value of it.

    `name`: what the ladder calls it.
    """
    curves = {run: night.whole_history(run, metric) for run in attempts.run_id}
    curves = {run: curve for run, curve in curves.items() if len(curve)}
    everything = pd.concat(curves.values()) if curves else points(())
    finite = everything.value[np.isfinite(everything.value)].to_numpy()
    if not len(finite):
        return None
    axis = axis_of(finite, _SQUEEZED_SCORES if has_word(metric, SCORES) else SQUEEZED)
    first, last = float(everything.step.min()), float(everything.step.max())
    title = " · ".join(word for word in (metric, name, axis.word) if word and (word is metric or word != metric))
    chart = Chart(
        title, (min(0.0, first) if first < 0.5 * last else first, last), (axis.low, axis.high), size=(440, 205),
        x_label="steps", log=axis.log, linear=axis.linear,
    )  # fmt: skip
    several = attempts.parent.nunique() > 1
    for row in attempts[attempts.run_id.isin(curves)].itertuples():
        curve, whose = curves[row.run_id], f"{f'seed {row.seed}, ' if several else ''}attempt {row.attempt} {row.rung}"
        known = curve[np.isfinite(curve.value)]
        with chart.group(attempt_kind(night, row)):
            if len(known):
                says = f"{whose}: {row.verdict}, last {known.value.iloc[-1]:.4g}"
                chart.line(curve.step.to_numpy(), curve.value.to_numpy(), line_kind(night, row.run_id), says)
                end = float(known.step.iloc[-1]), float(known.value.iloc[-1])
                _end(chart, row, end, f"c{chart_colour(night, row.run_id)}", says)
            _not_finite(chart, curve, f"{whose}: {metric}")
    return chart.render()


def _not_finite(chart: Chart, curve: pd.DataFrame, what: str) -> None:
    """Marks the steps at which a metric is NaN or infinite."""
    for word, there in (("NaN", curve.value.isna()), ("∞", curve.value == np.inf), ("−∞", curve.value == -np.inf)):
        steps = curve.step[there].tolist()
        says = f"{what} is {word} at {len(steps)} step{'s' * (len(steps) != 1)}, first at {steps[0]:,}" if steps else ""
        chart.edge(steps, "bottom" if word == "−∞" else "top", "odd", says)


def _failure(chart: Chart, night: Comparison, run: str, metric: str, curve: pd.DataFrame) -> None:
    """Draws a metric's line and, if it is the evidence's metric, the window from onset to detection."""
    colour = chart_colour(night, run)
    verdict = night.verdicts.get(run)
    found = [each for each in verdict.evidence if each.metric == metric] if verdict else []
    for each in found:
        if each.onset_step is not None and each.detection_step is not None:
            says = f"{each.rule}: {each.threshold}, from step {each.onset_step:,} to {each.detection_step:,}"
            chart.span(each.onset_step, each.detection_step, "failure", says)
    known = curve[np.isfinite(curve.value)]
    says = f"{metric}: last {known.value.iloc[-1]:.3g}"
    chart.line(curve.step.to_numpy(), curve.value.to_numpy(), f"c{colour}", says)
    if found:
        (row,) = night.attempts[night.attempts.run_id == run].itertuples()
        end = float(known.step.iloc[-1]), float(known.value.iloc[-1])
        _end(chart, row, end, f"c{colour}", f"detected: {found[0].sentence()}")


def line_kind(night: Comparison, run: str) -> str:
    """CSS classes of an attempt's line. Where there are more rungs than colours, the same ones again are dashed."""
    rungs = list(dict.fromkeys(night.attempts.rung))
    again = rungs.index(night.attempts.set_index("run_id").rung[run]) >= COLOURS
    return f"c{chart_colour(night, run)}{' again' if again else ''}"


def attempt_kind(night: Comparison, row: Any) -> str:
    """CSS classes by which the legend hides an attempt: `a` and its number, `r` and the index of its rung."""
    return f"a{row.attempt} r{list(dict.fromkeys(night.attempts.rung)).index(row.rung)}"


def chart_colour(night: Comparison, run: str) -> int:
    """Index of an attempt's colour, which is that of its rung."""
    rung = night.attempts.set_index("run_id").rung[run]
    return colours_of(night)[rung]


def colours_of(night: Comparison) -> dict[str, int]:
    """Rung → index of its colour, in the order in which rungs appear."""
    return {rung: index % COLOURS for index, rung in enumerate(dict.fromkeys(night.attempts.rung))}


def experts_of(night: Comparison, run: str) -> list[str]:
    """Names of an attempt's experts."""
    rows = night.metrics[(night.metrics.run_id == run) & night.metrics.metric.str.startswith("expert_usage/")]
    return [name.removeprefix("expert_usage/") for name in dict.fromkeys(rows.metric)]


def expert_load(night: Comparison, run: str, steps: tuple[float, float], order: list[str]) -> Markup | None:
    """Chart of the experts' load (mean α of each, stacked) and of the phase changes; None for fewer than two experts.

    `steps`: range of the horizontal axis. `order`: experts in the order of their colours.
    """
    experts = [name for name in order if name in experts_of(night, run)]
    if len(experts) < 2:
        return None
    usage = pd.concat(
        [night.history(run, f"expert_usage/{name}").set_index("step").value for name in experts], axis=1, join="inner"
    )
    if usage.empty:  # they were never logged together
        return None
    x, usage = usage.index.to_numpy(), usage.to_numpy()
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), 200)).astype(int))
    x, tops = x[keep], np.cumsum(usage[keep], axis=1)
    chart = Chart(LOAD, steps, (0.0, 1.0), x_label="steps")
    below = np.zeros(len(x))
    for index, name in enumerate(experts):
        colour = order.index(name) % EXPERT_COLOURS
        says = f"{name}: {usage[-1, index]:.0%} at the end"
        chart.area(list(x), list(below), list(tops[:, index]), f"fill e{colour}", says, shown=list(usage[keep, index]))
        below = tops[:, index]
    phase = night.history(run, "phase")
    for before, after in zip(phase.itertuples(), phase.iloc[1:].itertuples(), strict=False):
        begun = Phase.logged(after.value)
        if after.value != before.value and begun is not None:
            chart.span(after.step, after.step, "phase", f"{begun.key} begins")
    return chart.render()


def routing_table(night: Comparison, run: str) -> pd.DataFrame:
    """Frame of situations × experts: mean α over the last three measurements; empty if there are none.

    The column `share` is the share of all moments.
    """
    last = night.metrics[night.metrics.run_id == run].groupby("metric").tail(3).groupby("metric").value.mean()
    rows = {}
    for situation in SITUATIONS:
        if f"situation/{situation}" in last:
            mine = last[last.index.str.startswith(f"routing/{situation}/")]
            rows[situation] = {name.rsplit("/", 1)[1]: value for name, value in mine.items()}
            rows[situation]["share"] = last[f"situation/{situation}"]
    return pd.DataFrame.from_dict(rows, orient="index")


def intervals(
    rows: list[tuple[str, float, float, float, str]],
    title: str,
    unit: str = "",
    said: Callable[[float], str] = number,
) -> Markup | None:
    """Chart of dots with whiskers; None if no row has a value.

    `rows`: (label, value, low, high, CSS class of the dot) each, from the top down. `said`: a value in words.
    """
    rows = [row for row in rows if np.isfinite(row[1])]
    if not rows:
        return None
    ends = [value for _, middle, low, high, _ in rows for value in (middle, low, high) if np.isfinite(value)]
    margin = 0.06 * (max(ends) - min([0.0, *ends])) or 1.0
    x = (min(0.0, min(ends)), max(ends) + margin)
    chart = Chart(title, x, (0.0, float(len(rows))), size=(480, 64 + 34 * len(rows)), x_label=unit, rows=True)
    for index, (label, middle, low, high, kind) in enumerate(rows):
        y = len(rows) - index - 0.62
        says = f"{label}: {middle:.3g}" + (f" [{low:.3g}, {high:.3g}]" if np.isfinite(low) else "")
        if np.isfinite(low):
            chart.line(np.array([low, high]), np.array([y, y]), "whisker", says)
        chart.dot(middle, y, kind, says)
        words = f"{label}  {said(middle)}" + (f" [{said(low)}, {said(high)}]" if np.isfinite(low) else "")
        chart.text(x[0], y + 0.36, words, "word")
    return chart.render()
