"""What the scores of a run explain: in reinforcement learning a loss grows with the square of the returns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.health.history import History
from pipeline.health.names import SCORES, has_word, is_of_training

_SQUARED = 10.0
"""A loss of up to so many times the square of the largest score is explained by it."""


def scores_among(names: Iterable[str]) -> tuple[str, ...]:
    """The scores among some metrics."""
    return tuple(name for name in names if is_of_training(name) and has_word(name, SCORES))


def explained(history: History, steps: np.ndarray, *, growth: float = 0.0, lag: int = 0) -> tuple[np.ndarray, bool]:
    """Sizes of a loss (n,) that the scores up to each of the steps (n,) explain, NaN before the first score.

    With a `growth`, only a score explains anything whose largest size is so many times its own median before the last
    `lag` reports: a level that was there all along explains no change.

    Returns the sizes, and whether there are scores at all.
    """
    names = scores_among(history.metrics)
    sizes = np.full(len(steps), np.nan)
    for name in names:
        at, values = history.series(name)
        at, values = at[np.isfinite(values)], np.minimum(np.abs(values[np.isfinite(values)]), 1e100)
        if not len(at):
            continue
        largest = np.maximum.accumulate(values)
        square = _SQUARED * largest**2
        if growth:
            before = [np.median(values[: max(1, index + 1 - lag)]) for index in range(len(values))]
            square = np.where(largest >= growth * np.array(before), square, 0.0)
        newest = np.searchsorted(at, steps, side="right") - 1
        sizes = np.fmax(sizes, np.where(newest >= 0, square[np.maximum(newest, 0)], np.nan))
    return sizes, bool(names)
