"""One card for each attempt: verdict, evidence, what was changed, the monitored metrics, and the experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.template import fill
from pipeline.health.nonfinite import NOT_FINITE
from pipeline.health.rule_sets import Band
from pipeline.health.verdict import MEANING, Evidence

_MOST_NAMES = 8
"""Names of metrics in one sentence."""


class Figure(NamedTuple):
    """A chart or a table of an attempt."""

    drawn: Markup
    failing: bool = False
    """Whether it shows what gave the verdict."""


class Told(NamedTuple):
    """What the user can check of a verdict: rule, metric, threshold, steps and values."""

    evidence: Evidence
    sentence: str
    log: str
    """The last lines of the trainer's output."""
    numbers: str
    others: list[tuple[str, str]]
    """Further values, by name."""
    from_to: bool
    """Whether it is known at which step it began, and at which it was certain."""


class Routing(NamedTuple):
    """Mean weight of each expert in each situation."""

    situations: list[str]
    rows: list[tuple[str, list[tuple[float, bool]]]]
    """Expert → its weights in percent, and whether it is the largest in that situation; NaN: none is known."""
    shares: list[float]
    """Share of each situation of all moments."""


def attempt_cards(night: Comparison, attempts: pd.DataFrame, bands: Sequence[Band] = charts.MONITORED) -> Markup:
    """HTML of the attempts' cards; a metric has the same axes in all of them.

    `bands`: the metrics that are drawn of each attempt, where it has logged them.
    """
    steps = _range(night, attempts)
    tops = {
        band.metric: float(night.metrics[night.metrics.metric == band.metric].value.max(skipna=True)) for band in bands
    }
    experts = list(dict.fromkeys(name for run in attempts.run_id for name in charts.experts_of(night, run)))
    return Markup().join(_card(night, row, steps, bands, tops, experts) for row in attempts.itertuples())


def _card(
    night: Comparison,
    row: Any,
    steps: tuple[float, float],
    bands: Sequence[Band],
    tops: dict[str, float],
    experts: list[str],
) -> Markup:
    verdict = night.verdicts.get(row.run_id)
    evidence = verdict.evidence if verdict else ()
    failing = {each.metric for each in evidence}
    figures = []
    for band in bands:
        if (chart := charts.monitored(night, row.run_id, band, steps, tops[band.metric])) is not None:
            figures.append(Figure(chart, band.metric in failing))
    drawn = {band.metric for band in bands}
    for each in {each.metric: each for each in reversed(evidence)}.values():
        if (chart := charts.other_evidence(night, row.run_id, each, drawn)) is not None:
            figures.append(Figure(chart, True))
    script = bool(night.experiments.set_index("parent").script[row.parent])
    return fill(
        "card.html.j2",
        row=row,
        colour=charts.chart_colour(night, row.run_id),
        meaning="it has not ended yet" if verdict is None else verdict.meaning(script=script),
        told=[_evidence(each) for each in evidence],
        warnings=_warnings(night, row),
        odd=_not_finite(night, row.run_id),
        figures=figures,
        load=charts.expert_load(night, row.run_id, steps, experts),
        routing=_routing(night, row.run_id, experts),
        experts=[name for name in experts if name in charts.experts_of(night, row.run_id)],
        swatches={name: experts.index(name) % charts.EXPERT_COLOURS for name in experts},
        most=_MOST_NAMES,
    )


def _warnings(night: Comparison, row: Any) -> list[tuple[str, str, list[str]]]:
    """What was warned of an attempt: rule, sentence, and the other metrics of which it is true."""
    known = {*night.not_finite[night.not_finite.run_id == row.run_id].metric}  # what is NaN is told with its count
    by_rule: dict[str, list[Evidence]] = {}
    for each in night.warnings.get(row.run_id, ()):
        if each.threshold != NOT_FINITE or each.metric not in known:
            by_rule.setdefault(each.rule, []).append(each)
    return [
        (
            rule,
            found[0].sentence(),
            [name for name in dict.fromkeys(each.metric for each in found) if name and name != found[0].metric],
        )
        for rule, found in by_rule.items()
    ]


def _not_finite(night: Comparison, run: str) -> list[tuple[str, int, int, int]]:
    """Metric, number of its reports that are no number, of all reports, and the first step of those."""
    odd = night.not_finite[night.not_finite.run_id == run]
    counts = []
    for metric, values in odd.groupby("metric", sort=False):
        finite = int(((night.metrics.run_id == run) & (night.metrics.metric == metric)).sum())
        counts.append((str(metric), len(values), len(values) + finite, int(values.step.min())))
    return counts


def _evidence(evidence: Evidence) -> Told:
    return Told(
        evidence,
        sentence=evidence.sentence(),
        log="\n".join(evidence.detail.get("log_tail", [])[-6:]),
        numbers=" ".join(f"{value:.3g}" for value in evidence.values[-12:]),
        others=[(name, _short(value)) for name, value in evidence.detail.items() if name not in ("log_tail", MEANING)],
        from_to=evidence.onset_step is not None and evidence.detection_step is not None,
    )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value[-12:]))
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


_MOMENTS = {"low_hit_points": "low hit points", "monster_adjacent": "monster adjacent", "new_map": "new map"}


def _routing(night: Comparison, run: str, experts: list[str]) -> Routing | None:
    """A small heat map, experts × situations; None for fewer than two experts."""
    table = charts.routing_table(night, run)
    names = [name for name in experts if name in table.columns]
    if len(names) < 2:
        return None
    most = table[names].max(axis=1)
    return Routing(
        [_MOMENTS.get(str(each), str(each)) for each in table.index],
        [(name, [(usage, usage == most[situation]) for situation, usage in table[name].items()]) for name in names],
        list(table["share"]),
    )


def _range(night: Comparison, attempts: pd.DataFrame) -> tuple[float, float]:
    mine = night.metrics[night.metrics.run_id.isin(attempts.run_id)]
    return (float(mine.step.min()), float(mine.step.max())) if len(mine) else (0.0, 1.0)
