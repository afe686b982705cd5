"""One card for each attempt: verdict, evidence, what was changed, the monitored metrics, and the experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.template import fill
from pipeline.compare.timeline import legend_of_metrics
from pipeline.health.nonfinite import NOT_FINITE
from pipeline.health.rule_sets import Band
from pipeline.health.verdict import MEANING, Evidence

_MOST_NAMES = 8
"""Names of metrics in one sentence."""


class Figure(NamedTuple):
    """A chart or a table of an attempt."""

    name: str
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


class Card(NamedTuple):
    """One attempt."""

    row: Any
    """Its row of `Comparison.attempts`."""
    colour: int
    meaning: str
    """What its verdict means."""
    told: list[Told]
    warnings: list[tuple[str, str, list[str]]]
    """Rule, sentence, and the other metrics of which it is true."""
    odd: list[tuple[str, int, int, int]]
    """Metric, number of its reports that are no number, of all reports, and the first step of those."""
    figures: list[Figure]


class Routing(NamedTuple):
    """Mean weight of each expert in each situation."""

    situations: list[str]
    rows: list[tuple[str, list[tuple[float, bool]]]]
    """Expert → its weights in percent, and whether it is the largest in that situation; NaN: none is known."""
    shares: list[float]
    """Share of each situation of all moments."""


def attempt_cards(night: Comparison, attempts: pd.DataFrame, bands: Sequence[Band] = charts.MONITORED) -> list[Card]:
    """The attempts' cards; a metric has the same axes in all of them.

    `bands`: the metrics that are drawn of each attempt, where it has logged them.
    """
    steps = _range(night, attempts)
    tops = {
        band.metric: float(night.metrics[night.metrics.metric == band.metric].value.max(skipna=True)) for band in bands
    }
    experts = list(dict.fromkeys(name for run in attempts.run_id for name in charts.experts_of(night, run)))
    scripts = night.experiments.set_index("parent").script
    cards = []
    for row in attempts.itertuples():
        verdict = night.verdicts.get(row.run_id)
        evidence = verdict.evidence if verdict else ()
        figures = _monitored(night, row.run_id, evidence, steps, bands, tops) + _experts(
            night, row.run_id, steps, experts
        )
        meaning = "it has not ended yet" if verdict is None else verdict.meaning(script=bool(scripts[row.parent]))
        cards.append(
            Card(
                row,
                charts.chart_colour(night, row.run_id),
                meaning,
                [_evidence(each) for each in evidence],
                _warnings(night, row),
                _not_finite(night, row.run_id),
                figures,
            )
        )
    return cards


def cards_section(cards: Sequence[Card], *, script: bool, where: str) -> Markup:
    """HTML of the cards. `where` tells them from others of the page."""
    names = metrics_of(cards)
    return fill(
        "cards.html.j2",
        cards=cards,
        script=script,
        failing=any(figure.failing for card in cards for figure in card.figures),
        kinds={name: f"m{index}" for index, name in enumerate(names)},
        legend=legend_of_metrics(names, f"attempts {where}"),
        most=_MOST_NAMES,
    )


def metrics_of(cards: Sequence[Card]) -> list[str]:
    """The names of all figures."""
    return list(dict.fromkeys(figure.name for card in cards for figure in card.figures))


def _monitored(
    night: Comparison,
    run: str,
    evidence: Sequence[Evidence],
    steps: tuple[float, float],
    bands: Sequence[Band],
    tops: dict[str, float],
) -> list[Figure]:
    """The monitored metrics, and the others that gave the verdict."""
    failing = {each.metric for each in evidence}
    figures = []
    for band in bands:
        if (chart := charts.monitored(night, run, band, steps, tops[band.metric])) is not None:
            figures.append(Figure(band.label, chart, band.metric in failing))
    drawn = {band.metric for band in bands}
    for each in {each.metric: each for each in reversed(evidence)}.values():
        if (chart := charts.other_evidence(night, run, each, drawn)) is not None:
            figures.append(Figure(str(each.metric), chart, failing=True))
    return figures


def _experts(night: Comparison, run: str, steps: tuple[float, float], experts: list[str]) -> list[Figure]:
    """The load of the experts, and what they are used for; none for fewer than two."""
    load = charts.expert_load(night, run, steps, experts)
    if load is None:
        return []
    colours = {name: experts.index(name) % charts.EXPERT_COLOURS for name in experts}
    routing, mine = _routing(night, run, experts), charts.experts_of(night, run)
    if routing is None:  # if there is a heat map, its first column is the legend
        legend = fill("experts.html.j2", colours={name: colours[name] for name in experts if name in mine})
        return [Figure(charts.LOAD, load + legend)]
    table = fill("routing.html.j2", routing=routing, colours=colours)
    return [Figure(charts.LOAD, load), Figure("routing by situation", table)]


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
