"""One card for each attempt: verdict, evidence, what was changed, the monitored metrics, and the experts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from pipeline.compare import charts
from pipeline.compare.frames import Comparison
from pipeline.compare.style import EXPERT_COLOURS
from pipeline.compare.timeline import tone, words
from pipeline.health.nonfinite import NOT_FINITE
from pipeline.health.rule_sets import Band
from pipeline.health.verdict import MEANING, Evidence

_MOST_NAMES = 8
"""Names of metrics in one sentence."""


def attempt_cards(night: Comparison, attempts: pd.DataFrame, bands: Sequence[Band] = charts.MONITORED) -> str:
    """HTML of the attempts' cards; a metric has the same axes in all of them.

    `bands`: the metrics that are drawn of each attempt, where it has logged them.
    """
    steps = _range(night, attempts)
    tops = {
        band.metric: float(night.metrics[night.metrics.metric == band.metric].value.max(skipna=True)) for band in bands
    }
    experts = list(dict.fromkeys(name for run in attempts.run_id for name in charts.experts_of(night, run)))
    return "".join(_card(night, row, steps, bands, tops, experts) for row in attempts.itertuples())


def _card(
    night: Comparison,
    row: Any,
    steps: tuple[float, float],
    bands: Sequence[Band],
    tops: dict[str, float],
    experts: list[str],
) -> str:
    script = bool(night.experiments.set_index("parent").script[row.parent])
    verdict = night.verdicts.get(row.run_id)
    evidence = verdict.evidence if verdict else ()
    failing = {each.metric for each in evidence}
    figures = []
    for band in bands:
        if (chart := charts.monitored(night, row.run_id, band, steps, tops[band.metric])) is not None:
            kind = ' class="failing"' if band.metric in failing else ""
            figures.append(f"<figure{kind}>{chart}</figure>")
    drawn = {band.metric for band in bands}
    for each in {each.metric: each for each in reversed(evidence)}.values():
        if (chart := charts.other_evidence(night, row.run_id, each, drawn)) is not None:
            figures.append(f'<figure class="failing">{chart}</figure>')
    if (chart := charts.expert_load(night, row.run_id, steps, experts)) is not None:
        heat = _routing(night, row.run_id, experts)  # if there is one, its first column is the legend
        figures.append(f"<figure>{chart}{'' if heat else _experts(night, row.run_id, experts)}</figure>")
        figures.append(f"<figure>{heat}</figure>" if heat else "")
    colour = charts.chart_colour(night, row.run_id)
    says = "".join(f'<p class="evidence">{_evidence(each)}</p>' for each in evidence)
    says += _warnings(night, row) + _ran(row)
    meaning = "it has not ended yet" if verdict is None else verdict.meaning(script=script)
    return (
        f'<article class="card" style="--edge:var(--c{colour})" id="{row.run_id}"><div class="head">'
        f"<h3>{row.attempt} {escape(row.rung)} · "
        f'<span class="{tone(row.verdict)}">{escape(words(row.verdict))}</span></h3>'
        f'<span class="soft">run <code>{row.run_id}</code></span></div>'
        f'<p class="soft">{_with_code(meaning[0].upper() + meaning[1:])}.</p>{says}{_changed(row.changed)}'
        f'<div class="three">{"".join(figures)}</div></article>'
    )


def _warnings(night: Comparison, row: Any) -> str:
    """HTML of what is to be known of an attempt beside its verdict."""
    odd = night.not_finite[night.not_finite.run_id == row.run_id]
    known = {*odd.metric}  # what is NaN is told with its count
    by_rule: dict[str, list[Evidence]] = {}
    for each in night.warnings.get(row.run_id, ()):
        if each.threshold != NOT_FINITE or each.metric not in known:
            by_rule.setdefault(each.rule, []).append(each)
    told = []
    for rule, found in by_rule.items():
        others = [name for name in dict.fromkeys(each.metric for each in found) if name and name != found[0].metric]
        also = f"; also {_names(others)}" if others else ""
        told.append(f"rule <code>{escape(rule)}</code>: {escape(found[0].sentence())}{also}")
    counts = []
    for metric, values in odd.groupby("metric", sort=False):
        reports = len(values) + int(((night.metrics.run_id == row.run_id) & (night.metrics.metric == metric)).sum())
        first = f"first at step {values.step.min():,}"
        counts.append(f"<code>{escape(str(metric))}</code> in {len(values):,} of {reports:,} reports, {first}")
    told += [f"NaN or infinite: {'; '.join(counts)}"] if counts else []
    told += [f"not in the store: {escape(line)}" for line in row.not_stored]
    return "".join(f'<p class="evidence"><b class="wait">Warning</b> {each}</p>' for each in told)


def _with_code(text: str) -> str:
    """HTML of a sentence in which names stand between backticks."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _names(names: Sequence[str]) -> str:
    """HTML of some names, of many the first ones."""
    shown = ", ".join(f"<code>{escape(name)}</code>" for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _ran(row: Any) -> str:
    """HTML of a script's command, and where its checkpoints are."""
    if row.command is None:
        return ""
    where = f'<p class="note">Newest checkpoint: <code>{escape(row.checkpoint)}</code></p>' if row.checkpoint else ""
    return f'<pre class="command">{escape(row.command)}</pre>{where}'


def _evidence(evidence: Evidence) -> str:
    """HTML of what the user can check: rule, metric, threshold, steps and values."""
    if evidence.metric is None:
        tail = "\n".join(evidence.detail.get("log_tail", [])[-6:])
        log = f"<pre class='scroll note'>{escape(tail)}</pre>" if tail else ""
        return f"<b>Evidence</b> {escape(evidence.sentence())}{log}"
    values = " ".join(f"{value:.3g}" for value in evidence.values[-12:])
    others = "".join(
        f"; {escape(name)}: {escape(_short(value))}"
        for name, value in evidence.detail.items()
        if name not in ("log_tail", MEANING)
    )
    window = ""
    if evidence.onset_step is not None and evidence.detection_step is not None:
        window = f", first at step {evidence.onset_step:,}, certain at step {evidence.detection_step:,}"
    return (
        f"<b>Evidence</b> rule <code>{escape(evidence.rule)}</code>: <code>{escape(evidence.metric)}</code> "
        f'{escape(evidence.threshold)}{window}. <span class="soft">Values: {values}{others}</span>'
    )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_short, value[-12:]))
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def _changed(changed: dict[str, list[Any]]) -> str:
    if not changed:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td>{_setting(before)}</td><td><b>{_setting(after)}</b></td></tr>"
        for key, (before, after) in changed.items()
    )
    return (
        '<div class="scroll"><table style="width:auto;margin:0 0 16px"><tr><th>changed for this attempt</th>'
        f"<th>experiment</th><th>here</th></tr>{rows}</table></div>"
    )


def _setting(value: Any) -> str:
    """HTML of a value of the configuration; None: there is none."""
    return "–" if value is None else escape(str(value))


def _experts(night: Comparison, run: str, experts: list[str]) -> str:
    mine = [name for name in experts if name in charts.experts_of(night, run)]
    items = "".join(f"<li>{_swatch(name, experts)}{escape(name)}</li>" for name in mine)
    return f'<ul class="legend soft">{items}</ul>'


def _swatch(expert: str, experts: list[str]) -> str:
    colour = experts.index(expert) % EXPERT_COLOURS
    return f'<span class="swatch" style="background:var(--e{colour})"></span>'


_MOMENTS = {"low_hit_points": "low hit points", "monster_adjacent": "monster adjacent", "new_map": "new map"}


def _routing(night: Comparison, run: str, experts: list[str]) -> str | None:
    """HTML of a small heat map, experts × situations, as a table; None for fewer than two experts."""
    table = charts.routing_table(night, run)
    names = [name for name in experts if name in table.columns]
    if len(names) < 2:
        return None
    most = table[names].max(axis=1)
    head = "".join(f"<th class='n'>{_MOMENTS.get(str(each), escape(str(each)))}</th>" for each in table.index)
    rows = []
    for name in names:
        cells = []
        for situation, usage in table[name].items():
            shade = f' style="background:color-mix(in srgb, var(--c0) {75 * usage:.0f}%, transparent)"'
            text = f"<b>{usage:.0%}</b>" if usage == most[situation] else f"{usage:.0%}"
            cells.append(f"<td>{'–'}</td>" if usage != usage else f"<td{shade}>{text}</td>")
        rows.append(f"<tr><td>{_swatch(name, experts)}{escape(name)}</td>{''.join(cells)}</tr>")
    share = "".join(f"<td class='soft'>{each:.0%}</td>" for each in table["share"])
    return (
        '<div class="heat-title">routing by situation</div>'
        f'<table class="heat"><tr><th></th>{head}</tr>{"".join(rows)}'
        f"<tr><td class='soft'>of all moments</td>{share}</tr></table>"
    )


def _range(night: Comparison, attempts: pd.DataFrame) -> tuple[float, float]:
    mine = night.metrics[night.metrics.run_id.isin(attempts.run_id)]
    return (float(mine.step.min()), float(mine.step.max())) if len(mine) else (0.0, 1.0)
