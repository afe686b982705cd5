"""Statistics of few runs, as in rliable (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264): a run is a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test

RESAMPLES = 5000
_NORMAL = 1.959964
"""The 97.5 % quantile of the normal distribution."""
_CONFIDENCE = (0.025, 0.975)


class Interval(NamedTuple):
    """An estimate and its 95 % percentile bootstrap interval; NaN where there are too few runs to resample."""

    value: float
    low: float
    high: float


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, without the lowest and the highest quarter of the values (rounded down)."""
    cut = values.shape[-1] // 4
    return np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1)


def interval(
    runs: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean, seed: int = 0
) -> Interval:
    """A statistic of runs (n,) and its interval over runs. One run has no interval; no run has no value."""
    runs = np.asarray(runs, dtype=float)
    if len(runs) < 2:
        return Interval(float(runs[0]) if len(runs) else np.nan, np.nan, np.nan)
    drawn = statistic(runs[_resample(np.random.default_rng(seed), len(runs))])
    return Interval(float(statistic(runs)), *_quantiles(drawn))


def difference(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Interval:
    """mean(B) − mean(A) of runs (n,) and (m,). Fewer than two runs of either have no interval."""
    value = float(b.mean() - a.mean())
    if len(a) < 2 or len(b) < 2:
        return Interval(value, np.nan, np.nan)
    random = np.random.default_rng(seed)
    drawn = b[_resample(random, len(b))].mean(-1) - a[_resample(random, len(a))].mean(-1)
    return Interval(value, *_quantiles(drawn))


def probability_of_improvement(x: np.ndarray, y: np.ndarray, seed: int = 0) -> Interval:
    """P(X > Y) over all pairs of a run of X (n,) and one of Y (m,). A tie counts half (Mann & Whitney's U / nm)."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not len(x) or not len(y):
        return Interval(np.nan, np.nan, np.nan)
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    if len(x) < 2 or len(y) < 2:
        return Interval(float(wins.mean()), np.nan, np.nan)
    random = np.random.default_rng(seed)
    rows, columns = _resample(random, len(x)), _resample(random, len(y))
    return Interval(float(wins.mean()), *_quantiles(wins[rows[:, :, None], columns[:, None, :]].mean((1, 2))))


def paired_probability(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Interval:
    """P(X > Y) within a seed: the mean over seeds (n,) of that over the pairs of a seed's runs. A tie counts half.

    The interval is Wilson's for n seeds: two seeds that agree leave much open; a bootstrap would not say so.
    """
    wins = [float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean()) for a, b in zip(x, y, strict=True)]
    return share_of(np.array(wins))


def share_of(hits: np.ndarray) -> Interval:
    """The mean of n numbers between 0 and 1, with Wilson's interval for a share of n. One has no interval."""
    count, square = len(hits), _NORMAL**2
    if count < 2:
        return Interval(float(hits[0]) if count else np.nan, np.nan, np.nan)
    mean = float(np.mean(hits))
    middle = (mean + square / (2 * count)) / (1 + square / count)
    half = _NORMAL / (1 + square / count) * float(np.sqrt(mean * (1 - mean) / count + square / (4 * count**2)))
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half))


def permutation_p(x: np.ndarray, y: np.ndarray, *, paired: bool) -> float:
    """The two-sided p of the difference of means under exchange of the labels, of runs (n,) and (m,).

    `paired`: n = m, and labels are exchanged within a pair alone. Exact where there are at most 10,000 exchanges. NaN:
    there are fewer than two of either.
    """
    if min(len(x), len(y)) < 2:
        return float("nan")
    found = permutation_test(
        (np.asarray(x, dtype=float), np.asarray(y, dtype=float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """p (n,) corrected for their number, so that any false one is improbable (Holm 1979). NaN stays, uncounted."""
    corrected = np.full(len(p), np.nan)
    order = [index for index in np.argsort(p) if np.isfinite(p[index])]
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[index]))
        corrected[index] = least
    return corrected


def recent_mean(values: np.ndarray, episodes: np.ndarray, window: int, seed: int = 0) -> Interval:
    """Mean score of the last `window` episodes of one run, with its interval over updates.

    Where the window begins within an update, the episodes inside count, at that update's mean.

    Args:
        values: (n,) mean over the episodes that ended in each update.
        episodes: (n,) number of episodes that were finished then, rising.
        window: number of episodes; at least one update is taken.

    The interval says how well the score of this one policy is known. It says nothing of other seeds.
    """
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    weight = np.maximum(np.diff(episodes, prepend=episodes[0] - 1), 1)
    recent = episodes > episodes[-1] - window
    values, weight = values[recent], np.minimum(weight, episodes - episodes[-1] + window)[recent]
    mean = float(np.average(values, weights=weight))
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan)
    index = _resample(np.random.default_rng(seed), len(values))
    return Interval(mean, *_quantiles((values * weight)[index].sum(-1) / weight[index].sum(-1)))


def _resample(random: np.random.Generator, count: int) -> np.ndarray:
    return random.integers(0, count, size=(RESAMPLES, count))


def _quantiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, _CONFIDENCE)
    return float(low), float(high)
