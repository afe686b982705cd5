"""Statistics of few runs: a run is a number. Intervals are such that few runs have their 95 % as well.

The percentile bootstrap, which rliable (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264) takes of many runs, has
the truth in it in 50, 74 and 90 % of cases with two, three and five. `python -m benchmarks.coverage` measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from pipeline.compare.ranks import rank_test

FEWEST = 3
"""Runs that have an interval. Of two, Student's t would be 13 times as wide as they are apart, which says nothing."""
MANY = 10
"""Runs from which on the interquartile mean is taken. Of fewer it leaves so few that its interval is much wider."""
Statistic = Literal["mean", "IQM"]
"""The mean, or the interquartile mean."""
METHOD: dict[Statistic, str] = {
    "mean": "Scores of several runs: mean, and 95 % interval by Student's t",
    "IQM": "Scores of several runs: interquartile mean (IQM), and 95 % interval by Yuen's t",
}
"""What is stated of some runs, in words."""
_LOWER, _UPPER = 0.025, 0.975
_DRAWN = 60_000
"""Runs that are drawn for one interval of a probability: a page has many."""


class Interval(NamedTuple):
    """An estimate and its 95 % interval, which is NaN where there are too few runs."""

    value: float
    low: float
    high: float

    @property
    def of_the_other(self) -> Interval:
        """Of a probability: that of the opposite."""
        return Interval(1 - self.value, 1 - self.high, 1 - self.low)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis, without the lowest and the highest quarter of the values (rounded down)."""
    cut = values.shape[-1] // 4
    return np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(-1)


def statistic_for(counts: Iterable[int]) -> Statistic:
    """What is stated of samples of so many runs that stand side by side; empty ones do not count."""
    return "IQM" if min((each for each in counts if each), default=0) >= MANY else "mean"


def method(statistic: Statistic) -> str:
    """How scores over runs are to be read, in a sentence."""
    return f"{METHOD[statistic]} over runs. Fewer than three runs are too few for an interval."


def interval(runs: np.ndarray, statistic: Statistic | None = None) -> Interval:
    """A statistic of runs (n,) and its interval over runs; by default :func:`statistic_for` n.

    Fewer than three runs have no interval; no run has no value. That of the interquartile mean is by the deviation of
    the winsorised runs (Yuen 1974), with as many degrees of freedom as runs are left, less one.
    """
    runs = np.sort(np.asarray(runs, dtype=float))
    if (statistic or statistic_for([len(runs)])) == "mean":
        return weighted_mean(runs, np.ones(len(runs)))
    count, cut = len(runs), len(runs) // 4
    left, value = count - 2 * cut, float(interquartile_mean(runs))
    if left < FEWEST:
        return Interval(value, np.nan, np.nan)
    with np.errstate(over="ignore"):
        squares = (count - 1) * np.clip(runs, runs[cut], runs[count - cut - 1]).var(ddof=1)
    return _student(value, float(np.sqrt(squares / (left * (left - 1)))), left - 1)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> Interval:
    """The mean of values (n,) and its interval over them: Student's t.

    Args:
        values: each a mean over as many things as its weight says.
        weights: (n,), above 0. Where they differ, the deviation is that of a ratio (Cochran 1977, section 6.3).
    """
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    mean, count = float(np.average(values, weights=weights)), len(values)
    if count < FEWEST:
        return Interval(mean, np.nan, np.nan)
    with np.errstate(over="ignore"):  # a script may log anything; what cannot be squared has no interval
        squares = float(np.sum((weights * (values - mean)) ** 2)) * count / (count - 1)
    return _student(mean, float(np.sqrt(squares)) / float(np.sum(weights)), count - 1)


def difference(a: np.ndarray, b: np.ndarray) -> Interval:
    """mean(B) − mean(A) of runs (n,) and (m,), by Welch's t. Fewer than three runs of either have no interval."""
    value = float(b.mean() - a.mean())
    if min(len(a), len(b)) < FEWEST:
        return Interval(value, np.nan, np.nan)
    with np.errstate(over="ignore"):
        of_a, of_b = (float(each.var(ddof=1)) / len(each) for each in (a, b))
    if not np.isfinite(squares := of_a + of_b):
        return Interval(value, np.nan, np.nan)
    if not squares:
        return Interval(value, value, value)
    freedom = squares**2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    return _student(value, float(np.sqrt(squares)), freedom)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> Interval:
    """P(X > Y) over all pairs of a run of X (n,) and one of Y (m,). A tie counts half (Mann & Whitney's U / nm).

    The interval is that of the rank test (:mod:`pipeline.compare.ranks`), which has a width also where the runs do not
    overlap. One run of either has none.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if not len(x) or not len(y):
        return Interval(np.nan, np.nan, np.nan)
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    if len(x) < 2 or len(y) < 2:
        return Interval(float(wins.mean()), np.nan, np.nan)
    found = rank_test(x, y, draws=max(2000, _DRAWN // (len(x) + len(y))))
    return Interval(found.probability, found.low, found.high)


def paired_probability(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Interval:
    """P(X > Y) within a seed: the mean over seeds (n,) of that over the pairs of a seed's runs. A tie counts half.

    The interval is that of a share of n: two seeds that agree leave much open.
    """
    wins = [float(((a[:, None] > b) + 0.5 * (a[:, None] == b)).mean()) for a, b in zip(x, y, strict=True)]
    return share_of(np.array(wins))


def share_of(hits: np.ndarray) -> Interval:
    """The mean of n numbers between 0 and 1, and the exact interval of a share of n. One has no interval.

    It is Clopper and Pearson's (1934), of a number of hits that need not be whole.
    """
    count, found = len(hits), float(np.sum(hits))
    if count < 2:
        return Interval(float(hits[0]) if count else np.nan, np.nan, np.nan)
    low = float(stats.beta.ppf(_LOWER, found, count - found + 1)) if found else 0.0
    high = float(stats.beta.ppf(_UPPER, found + 1, count - found)) if found < count else 1.0
    return Interval(found / count, low, high)


def permutation_p(x: np.ndarray, y: np.ndarray, *, paired: bool) -> float:
    """The two-sided p of the difference of means under exchange of the labels, of runs (n,) and (m,).

    `paired`: n = m, and labels are exchanged within a pair alone. Exact where there are at most 10,000 exchanges. NaN:
    there are fewer than two of either.
    """
    if min(len(x), len(y)) < 2:
        return float("nan")
    found = stats.permutation_test(
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


def recent(
    values: np.ndarray, episodes: np.ndarray, window: int, begun: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the last `window` episodes of one run, (k,), and how many episodes each counts for.

    Where the window begins within an update, the episodes inside count, at that update's mean.

    Args:
        values: (n,) mean over the episodes that ended in each update.
        episodes: (n,) number of episodes that were finished then, rising.
        window: number of episodes; at least one update is taken, if there is any.
        begun: number of episodes that were finished when the run began; None: the first update counts as one.

    Their :func:`weighted_mean` is the score of this one policy. Its interval says how well that is known, and nothing
    of other seeds. Neighbouring updates count as independent, as they are in recorded runs.
    """
    if not len(values):
        return values, values
    weight = np.maximum(np.diff(episodes, prepend=episodes[0] - 1 if begun is None else begun), 1)
    last = episodes > episodes[-1] - window
    return values[last], np.minimum(weight, episodes - episodes[-1] + window)[last]


def _student(value: float, error: float, freedom: float) -> Interval:
    half = float(stats.t.ppf(_UPPER, freedom)) * error
    if not np.isfinite(half):
        return Interval(value, np.nan, np.nan)
    return Interval(value, value - half, value + half)
