"""Scores in words, and whether one is better than that of random play."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.compare.svg import number
from pipeline.health.readings import written

SCORE = ["score", "score_low", "score_high"]
"""The columns of a score with its interval."""


def verdict_on_score(row: Any) -> tuple[str, str]:
    """Whether a settled policy is better than random play under the same step cap: a sentence and its CSS class.

    `row`: an experiment's row of `Comparison.experiments`.
    """
    if not np.isfinite(row.score):
        return "There is no score", "wait"
    if not np.isfinite(row.random):
        return "There is no random baseline to compare it with", "wait"
    if row.score_low > row.random_high:
        return "Its policy is clearly better than random play", "good"
    if row.score_high < row.random_low:
        return "Its policy is worse than random play", "bad"
    return "Its policy is not clearly better than random play", "wait"


def plain_interval(value: float, low: float, high: float, *, fine: bool = False) -> str:
    """A value with its interval in words: `10.1 [5.7, 16.6]`. `fine`: with three digits, as an accuracy needs them."""
    if not np.isfinite(value):
        return "–"
    said = number if fine else written
    return said(value) + (f" [{said(low)}, {said(high)}]" if np.isfinite(low) else "")
