"""Whether a metric has gained anything from the start of a run to its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST = 30
"""Reports without which nothing can be said for sure."""
FEW = 12
"""Reports with which something can be said at all: four in each third, so that ranks can tell them apart."""
_CLEAR, _AT_ONCE = 2.0, 4.0
"""σ that a difference of thirds must have, and one that rests on the first report alone."""
_BEYOND_CHANCE = 3.0
"""σ from which an autocorrelation is none that chance makes."""
_NORMAL = 1.4826
"""The median absolute deviation times this is the σ of a normal distribution."""


@dataclass(frozen=True)
class Gain:
    """What a metric has gained, in its own direction: larger is better."""

    first: float
    """The mean of the first third of the reports."""
    last: float
    """The mean of the last third."""
    sigmas: float
    """The difference over its own standard error."""
    seen: bool
    """Whether there is a gain that noise does not explain."""
    upper: float
    """The upper 95 % bound of the difference."""


def gain(values: np.ndarray, least: int = LEAST) -> Gain | None:
    """What a metric has gained; None: there are fewer than `least` finite values (n,), the larger the better.

    The first third of the reports is compared with the last, by their means (Welch) and by their ranks (Mann-Whitney).
    Neighbouring reports are alike where a script logs moving means, so each third counts as fewer reports, by its
    autocorrelation. Where all was learnt before the second report, that one tells.
    """
    values = values[np.isfinite(values)]
    if len(values) < least:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.clip(values, -1e100, 1e100)
        first, last = values[: len(values) // 3], values[-(len(values) // 3) :]
        share = (_independent(first), _independent(last))
        error = float(np.sqrt(first.var(ddof=1) / share[0] + last.var(ddof=1) / share[1]))
        difference = float(last.mean() - first.mean())
        sigmas = _over(difference, error)
        shrunk = np.sqrt(min(share) / len(first))
        ranks = _by_rank(first, last) * shrunk
        noise = max(_spread(last), _spread(np.diff(first)) / np.sqrt(2))
        at_once = values[0] < last.min() and _over(float(np.median(last) - values[0]), noise) >= _AT_ONCE
    seen = bool(max(sigmas, ranks) >= _CLEAR or at_once)
    return Gain(float(first.mean()), float(last.mean()), sigmas, seen, difference + 1.645 * error)


def _over(difference: float, error: float) -> float:
    return difference / error if error > 0 else float(np.inf * difference) if difference else 0.0


def _spread(values: np.ndarray) -> float:
    return float(_NORMAL * np.median(np.abs(values - np.median(values))))


def is_noise(values: np.ndarray) -> bool:
    """Whether values (n,) are no more alike to their neighbours than chance makes them (3 σ), as if none followed.

    The standard error of an autocorrelation is 1/√n where there is none (Bartlett 1946).
    """
    values = values[np.isfinite(values)]
    return _autocorrelation(values) * np.sqrt(len(values)) < _BEYOND_CHANCE


def _autocorrelation(values: np.ndarray) -> float:
    """At lag 1, of the values (n,); 0 for a constant."""
    apart = values - values.mean()
    square = float((apart**2).sum())
    return float((apart[1:] * apart[:-1]).sum()) / square if square > 0 else 0.0


def _independent(values: np.ndarray) -> float:
    """So many independent reports tell as much as these (n,), by their autocorrelation at lag 1; at least 2."""
    correlation = min(max(_autocorrelation(values), 0.0), 0.99)
    return max(2.0, len(values) * (1 - correlation) / (1 + correlation))


def _by_rank(first: np.ndarray, last: np.ndarray) -> float:
    """The σ by which the last values outrank the first ones; the rank sum, normal, with its correction for ties."""
    _, inverse, counts = np.unique(np.r_[first, last], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(first), len(last)
    spread = np.sqrt(n * m / (n + m) / (n + m - 1) * ((ranks - ranks.mean()) ** 2).sum())
    return float((ranks[n:].sum() - m * (n + m + 1) / 2) / spread) if spread > 0 else 0.0
