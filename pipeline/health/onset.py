"""Where a decline began, and which weights were sound before it.

A threshold is crossed long after a metric has begun to get worse, and weights from the middle of a decline are no start
for another attempt. So the report at which a decline began is looked for backwards from the onset of a failure, and
before it every monitored metric must have been normal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.health.history import History
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import BANDS, Band
from pipeline.health.verdict import Evidence

_MAD_TO_SIGMA = 1.4826
_CLEAR = 12.0
"""F statistic from which one shape fits clearly better than another."""
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.25
"""Of the way from the level to the value at the onset: closer to the level counts as the level, and farther never
does."""
_MANY_TIMES, _EXPLODED = 3.0, 100.0
"""Values at the onset from which on a logarithmic scale may fit better, and is looked at anyway: times the median, or
times the spread where not all values are positive."""
_LEAST_REPORTS = 8
"""Reports that make a run's own level."""
_ONE_PART = (("expert_collapse", "router_indecision"),)
"""Verdicts about one part of the policy that can be replaced alone: the router."""
_STRETCHES = 8
"""The newest stretches of sound weights that a verdict keeps: it has to fit into a tag."""


def before_decline(values: np.ndarray) -> int | None:
    """The index of the last of some values before their decline began; None: they decline from the first on.

    The shape that is looked for is a level that bends into a straight rise, fitted by least squares in the scale,
    linear or logarithmic. From the bend the search goes on, back or forth, to the last value that is at the level.
    Where the logarithmic one fits better, or the values explode, the earlier of the two counts.

    Args:
        values: (n,), larger is worse. The last one is that of the onset; it may be infinite or NaN.
    """
    found, sudden = np.asarray(values, dtype=float), False
    if len(found) and not np.isfinite(found[-1]):
        found, sudden = found[:-1], True
    known = np.flatnonzero(np.isfinite(found))
    x = found[known]
    if sudden and (len(x) < 3 or _at_its_level(x)):
        return int(known[-1]) if len(known) else None
    if len(x) < 2:
        return None
    x = x / (np.abs(x).max() or 1.0)  # so that no square is too large
    x = _without_spikes(np.minimum(x, x[-1]))
    # What got better at first has its level where it was best.
    best = int(np.argmin(x[:-1]))
    x[:best] = np.minimum(x[:best], np.quantile(x[:-1], 0.25))
    level, sigma = _level(x)
    size = level if x.min() > 0 else max(sigma, 1e-12)
    times = (x[-1] - min(0.0, x.min())) / size
    logs = np.log(x) if x.min() > 0 else np.log1p((x - x.min()) / size)
    scales = [x]
    if times > _EXPLODED or (x.min() > 0 and times > _MANY_TIMES and _shape(logs).misfit < _shape(x).misfit):
        scales.append(logs)
    if _rises_from_the_start(min(scales, key=lambda each: _shape(each).misfit)):
        return None
    # Logarithms show the beginning of an explosion, which hides behind its end; on a linear scale a drift shows.
    last = min(_last_at_level(each, cut=each is x) for each in scales if each is x or not _rises_from_the_start(each))
    return None if last < 0 else int(known[last])


class _Shape(NamedTuple):
    """A level that bends into a straight rise, fitted to values."""

    bend: int
    """The last index of the level; 0: the first value alone."""
    rise: float
    """From the level to the fit's end; 0 where it is not clearly there."""
    misfit: float
    """The share of the variance that is left."""


def _shape(x: np.ndarray) -> _Shape:
    """The best fit to the values (n,)."""
    centred = x - x.mean()
    total = float((centred**2).sum())
    if len(x) < 3 or total == 0:
        return _Shape(max(0, len(x) - 2), 0.0, 0.0)
    left = _misfits(centred)
    bend = int(np.argmin(left))
    clear = (total - left[bend]) / (left[bend] / (len(x) - 2)) >= _CLEAR
    rise = np.maximum(0, np.arange(len(x)) - bend)
    return _Shape(bend, float(np.polyfit(rise, x, 1)[0] * rise[-1]) if clear else 0.0, float(left[bend] / total))


def _misfits(x: np.ndarray) -> np.ndarray:
    """The squared error of the best level and rise, for each bend: (n − 1,). x (n,) has the mean 0."""
    n = len(x)
    index, bends = np.arange(n, dtype=float), np.arange(n - 1)
    after = n - 1 - bends  # values of the rise
    # For each bend: the sums of the rise h = max(0, index − bend), of h², and of h·x.
    rise, squares = after * (after + 1) / 2, after * (after + 1) * (2 * after + 1) / 6
    of_x, of_products = (np.cumsum(each[::-1])[::-1][1:] for each in (x, index * x))
    product = np.maximum(of_products - bends * of_x, 0.0)  # what falls is no rise
    total = float((x**2).sum())
    return np.maximum(total - product**2 / (squares - rise**2 / n), 1e-12 * total)


def _rises_from_the_start(x: np.ndarray) -> bool:
    """Whether a straight rise from the first value on fits as well as any level before it."""
    n = len(x)
    centred = x - x.mean()
    total = float((centred**2).sum())
    if n < 4 or total == 0:
        return False
    left = _misfits(centred)
    bent = (left[0] - left.min()) / (left.min() / (n - 3))
    rises = (total - left[0]) / (left[0] / (n - 2))
    first = max(3, n // 8)
    slope, at_first = (np.polyfit(np.arange(len(part)), part, 1)[0] for part in (x, x[:first]))
    return bool(bent < _CLEAR and rises >= _CLEAR and at_first >= slope / 2)


def _last_at_level(x: np.ndarray, *, cut: bool) -> int:
    """The last index of the values (n,), n > 1, that is at the level before their rise; −1: none is.

    `cut`: what lies before the bend is cut again as long as it clearly rises itself.
    """
    bend, least = min(_shape(x).bend, len(x) - 2), _LEAST_SHARE * (x[-1] - x.min())
    while cut and bend > 0 and (before := _shape(x[: bend + 1])).rise > least:
        bend = min(before.bend, bend - 1)
    level, sigma = _level(x[: bend + 1])
    if bend + 1 < _LEAST_REPORTS:
        level, sigma = float(np.quantile(x[: bend + 1], 0.25)), 0.0
    way = x[-1] - level
    limit = level + np.clip(3 * sigma, _LEAST_SHARE * way, _MOST_SHARE * way)
    last = bend
    while last < len(x) - 2 and x[last + 1] <= limit:
        last += 1
    while last >= 0 and x[last] > limit:
        last -= 1
    return last


def _at_its_level(x: np.ndarray) -> bool:
    """Whether the last value lies where those before it do."""
    level, sigma = _level(x[:-1])
    return bool(x[-1] <= level + max(6 * sigma, abs(level)))


def _level(x: np.ndarray) -> tuple[float, float]:
    """The median, and the spread as a robust σ."""
    median = float(np.median(x))
    return median, _MAD_TO_SIGMA * float(np.median(np.abs(x - median)))


def _without_spikes(x: np.ndarray) -> np.ndarray:
    """A running median of three; both ends stay."""
    if len(x) < 7:
        return x
    return np.r_[x[0], np.median(np.lib.stride_tricks.sliding_window_view(x, 3), axis=1), x[-1]]


def with_start(history: History, rule: Rule, evidence: Evidence, rules: Iterable[Rule]) -> Evidence:
    """The evidence of a rule that fired, with the steps at which weights were sound before the decline began.

    It looks at nothing after the onset, so it finds the same in a live run and in a finished one.

    Args:
        history: that of the metrics of all rules.
        rules: all rules by which the run is judged; those with the action `fail` count.
    """
    fatal = [each for each in rules if each.action == "fail"]
    reports = history.series(evidence.metric)[0] if evidence.metric is not None else np.array([], dtype=np.int64)
    part = next((part for part in _ONE_PART if rule.verdict in part), None)
    if part is not None and len(reports):
        others = [each for each in fatal if each.verdict not in part]
        elsewhere = _sound(history, others, reports, min(int(reports[-1]), evidence.detection_step or 0))
        evidence = evidence.model_copy(update={"sound_elsewhere": elsewhere})
    last, onset = evidence.last_good_step, evidence.onset_step
    if last is None or onset is None:
        return evidence
    for metric, worse in rule.worsening(history, evidence).items():
        steps, values = history.series(metric)
        values = values[steps <= onset]
        found = before_decline(worse * values) if len(values) else None
        last = -1 if found is None else min(last, int(steps[found]))
    sound = _sound(history, fatal, reports, last)
    return evidence.model_copy(update={"sound": sound})


def _sound(history: History, rules: Sequence[Rule], reports: np.ndarray, last: int) -> tuple[tuple[int, int], ...]:
    """The newest stretches of steps, up to the last one, at which weights were sound: see `Evidence.sound`.

    A report is good if no rule's condition holds, however briefly, and each monitored metric is in its normal band. A
    metric that is not reported at a step has the value of its last report.
    """
    bands = [band for band in BANDS if band.metric in history and any(band.metric in rule.metrics for rule in rules)]
    held = [each for rule in rules for each in rule.held(history)]
    columns = [reports, *(steps for steps, _ in held), *(history.series(band.metric)[0] for band in bands)]
    at = np.unique(np.concatenate(columns))
    at = at[at <= last]
    good = np.ones(len(at), dtype=bool)
    for steps, bad in held:
        good &= ~_newest(at, steps, bad, False)
    for band in bands:
        good &= _is_normal(band, history, at)
    edges = np.flatnonzero(np.diff(np.r_[False, good, False].astype(int)))
    pairs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))[-_STRETCHES:]
    return tuple((int(at[first - 1]) if first else 0, int(at[end - 1])) for first, end in pairs)


def _newest(at: np.ndarray, steps: np.ndarray, values: np.ndarray, before: float) -> np.ndarray:
    """The newest of the values at each of the steps `at`; `before`: what holds before the first one."""
    return np.r_[np.array([before], dtype=values.dtype), values][np.searchsorted(steps, at, side="right")]


def _is_normal(band: Band, history: History, at: np.ndarray) -> np.ndarray:
    """Whether a metric is normal at each of the steps, (n,) bool.

    Healthy runs leave the brief's normal band, too. So what is neither normal nor abnormal there is normal where the
    run has a level of its own.
    """
    others = [name for name, _ in (*band.upper_counts_when, *band.lower_counts_when) if name in history]
    columns = {name: _newest(at, *history.series(name), 0.0) for name in (band.metric, *others)}
    own = _newest(at, *history.series(band.metric), np.nan)
    known = own[np.isfinite(own)]
    level, sigma = _level(known) if len(known) >= _LEAST_REPORTS else (np.nan, np.nan)
    normal = np.ones(len(at), dtype=bool)
    for index in np.flatnonzero((own < band.normal[0]) | (own > band.normal[1]) | ~np.isfinite(own)):
        judged = band.judge({**{name: float(column[index]) for name, column in columns.items()}})
        usual = judged == "between" and abs(own[index] - level) <= 3 * sigma
        logged = at[index] >= history.series(band.metric)[0][0]
        normal[index] = not logged or judged == "normal" or usual
    return normal
