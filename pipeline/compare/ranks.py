"""The probability that a run of one sample is better than a run of another, with an interval that few runs bear out."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_DRAWS = 20_000
_PERMUTATIONS = 20_000
_FARTHEST = 12.0
"""Distance, in deviations, at which two normal distributions hardly ever overlap."""


class RankTest(NamedTuple):
    """A sample of runs beside another one."""

    probability: float
    """That a run of the first is the better one; a tie counts half."""
    low: float
    high: float
    """95 % interval of the probability, over runs (:func:`limits`)."""
    p_value: float
    """Of the exact two-sided Mann-Whitney test."""


def rank_test(x: np.ndarray, y: np.ndarray, draws: int = _DRAWS) -> RankTest:
    """Compares runs (n,) and (m,), both at least 2; −inf is one whose training failed.

    `draws`: how many samples the interval is taken from.
    """
    # Ranks, because an infinity has a rank but no sum.
    ranks = stats.rankdata(np.concatenate([x, y]))
    own, others = ranks[: len(x)], ranks[len(x) :]
    probability = float((own.sum() - len(x) * (len(x) + 1) / 2) / (len(x) * len(y)))
    p_value = _p_value(own, others)
    low, high = limits(tuple(np.sort(ranks)), len(x), float(own.sum()), draws)
    # The interval is drawn. At ½ it has to agree with the test, which is exact.
    if p_value > 1 - CONFIDENCE:
        low, high = min(low, 0.5), max(high, 0.5)
    elif probability > 0.5:
        low = max(low, float(np.nextafter(0.5, 1)))
    else:
        high = min(high, float(np.nextafter(0.5, 0)))
    return RankTest(probability, low, high, p_value)


def _p_value(own: np.ndarray, others: np.ndarray) -> float:
    """p-value of the exact two-sided Mann-Whitney test, from ranks (n,) and (m,)."""
    if len({*own.tolist(), *others.tolist()}) == len(own) + len(others):
        return float(stats.mannwhitneyu(own, others, method="exact").pvalue)
    exact = stats.permutation_test(  # with ties
        (own, others),
        lambda a, b, axis: np.sum(a, axis=axis),
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return min(1.0, float(exact.pvalue))


@lru_cache(maxsize=4096)
def limits(ranks: tuple[float, ...], count: int, rank_sum: float, draws: int = _DRAWS) -> tuple[float, float]:
    """95 % interval of the probability that a run of the first sample is the better one, from the sum of its ranks.

    It has each probability at which so high a sum, and so low a one, comes in more than 2.5 % of cases. At ½ that is
    the exact rank test. At others it needs a law: the runs are a shift of normal ones, on any scale.

    Args:
        ranks: (n + m,), the ranks of both samples, ascending; equal ones where runs are equal.
        count: n, the runs of the first sample.
        rank_sum: sum of their ranks.
        draws: samples that are drawn.
    """
    drawn = np.random.default_rng(0).standard_normal((draws, len(ranks)))
    scores = np.asarray(ranks)

    def share(shift: float, sign: int) -> float:
        """How often the sum is as high as this one (sign 1), or as low (−1), at a shift of the first sample."""
        moved = drawn.copy()
        moved[:, :count] += shift
        places = moved.argsort(axis=1).argsort(axis=1)[:, :count]
        return float(np.mean(sign * (scores[places].sum(axis=1) - rank_sum) >= -1e-9))

    def border(sign: int) -> float:
        """The shift at which that share is 2.5 %; the share falls with it away from the sum."""
        near, far = sign * _FARTHEST, -sign * _FARTHEST
        for _ in range(14):
            middle = (near + far) / 2
            if share(middle, sign) > (1 - CONFIDENCE) / 2:
                near = middle
            else:
                far = middle
        return (near + far) / 2

    low, high = (float(stats.norm.cdf(border(sign) / np.sqrt(2))) for sign in (1, -1))
    return (low if share(-_FARTHEST, 1) <= (1 - CONFIDENCE) / 2 else 0.0), (
        high if share(_FARTHEST, -1) <= (1 - CONFIDENCE) / 2 else 1.0
    )
