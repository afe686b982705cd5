"""Scores in words, and whether one is better than that of random play."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from pipeline.compare.statistics import Interval, recent, weighted_mean
from pipeline.compare.svg import number
from pipeline.health.readings import doubt, written
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store

SCORE = ["score", "score_low", "score_high"]
"""The columns of a score with its interval."""
RANDOM = "random/score"
"""The metric that has random play's score; its interval is beside it."""
_UNKNOWN = Interval(np.nan, np.nan, np.nan)

QualityName = Literal["above_random", "as_random", "below_random", "unknown"]
_VERDICTS: dict[str, tuple[str, str]] = {
    "above_random": ("Its policy is clearly better than random play", "good"),
    "below_random": ("Its policy is worse than random play", "bad"),
    "as_random": ("Its policy is not clearly better than random play", "wait"),
    "unknown": ("Whether its policy is better than random play is not known", "wait"),
}
"""A sentence, and its CSS class."""


def sentence_of(quality: str) -> tuple[str, str]:
    """A value of the tag `ladder.quality` as a sentence without its full stop, and its CSS class."""
    return _VERDICTS.get(quality, _VERDICTS["unknown"])


class Quality(NamedTuple):
    """What a policy is worth: its score, beside that of random play under the same step cap."""

    score: Interval
    """Of the last `training.score_window` episodes."""
    random: Interval

    @property
    def name(self) -> QualityName:
        """Above or below random play where the 95 % intervals are apart."""
        if not np.isfinite([*self.score, *self.random]).all():
            return "unknown"
        if self.score.low > self.random.high:
            return "above_random"
        return "below_random" if self.score.high < self.random.low else "as_random"

    @property
    def verdict(self) -> tuple[str, str]:
        """The same as a sentence, and its CSS class."""
        return sentence_of(self.name)

    @property
    def sentence(self) -> str:
        """Both scores with their intervals; empty where there is no score."""
        if not np.isfinite(self.score.value):
            return ""
        random = f", random {plain_interval(*self.random)}" if np.isfinite(self.random.value) else ""
        return f"score {plain_interval(*self.score)}{random}"


NO_QUALITY = Quality(_UNKNOWN, _UNKNOWN)


def quality_of(store: Store, run: AttemptRun) -> Quality:
    """The quality of an attempt, from what it has logged so far."""
    found = store.points(run.run_id, [name for name in ("score", "episodes") if name in run.logged])
    series = {
        name: pd.DataFrame(
            [(step, value) for step, _, value in points if doubt(name, value) is None], columns=["step", "value"]
        ).sort_values("step", kind="stable")
        for name, points in found.items()
    }
    return Quality(weighted_mean(*recent_scores(series, run)), random_score(run.metrics))


def recent_scores(series: Mapping[str, pd.DataFrame], run: AttemptRun) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the last episodes of an attempt, one an update, and their weights.

    Args:
        series: columns `step` and `value` of each metric, in the order of steps.
    """
    if "episodes" in series:
        scores, episodes = side_by_side(series, "score", "episodes")
    else:  # a trainer that does not count them: each update is one
        (scores,) = side_by_side(series, "score")
        episodes = np.arange(1.0, len(scores) + 1)
    begun = 0.0 if run.warm_start is None and not run.is_of_a_script else None  # a script may count on from anywhere
    return recent(scores, episodes, int(float(run.params.get("training.score_window", "100"))), begun)


def random_score(metrics: Mapping[str, float]) -> Interval:
    """Random play's score, as it is logged."""
    value, low, high = (metrics.get(name, np.nan) for name in (RANDOM, f"{RANDOM}_low", f"{RANDOM}_high"))
    return Interval(value, low, high)


def side_by_side(series: Mapping[str, pd.DataFrame], *names: str) -> list[np.ndarray]:
    """The values of some metrics, each (n,), at the steps at which all of them have one."""
    if any(name not in series for name in names):
        return [np.array([]) for _ in names]
    columns = [series[name].drop_duplicates("step", keep="last").set_index("step").value for name in names]
    joined = pd.concat(columns, axis=1, join="inner")
    return [joined.iloc[:, index].to_numpy() for index in range(len(names))]


def verdict_on_score(row: Any) -> tuple[str, str]:
    """Whether a settled policy is better than random play under the same step cap: a sentence and its CSS class.

    `row`: an experiment's row of `Comparison.experiments`.
    """
    if not np.isfinite(row.score):
        return "There is no score", "wait"
    if not np.isfinite(row.random):
        return "There is no random baseline to compare it with", "wait"
    score = Interval(row.score, row.score_low, row.score_high)
    return Quality(score, Interval(row.random, row.random_low, row.random_high)).verdict


def plain_interval(value: float, low: float, high: float, *, fine: bool = False) -> str:
    """A value with its interval in words: `10.1 [5.7, 16.6]`. `fine`: with three digits, as an accuracy needs them."""
    if not np.isfinite(value):
        return "–"
    said = number if fine else written
    return said(value) + (f" [{said(low)}, {said(high)}]" if np.isfinite(low) else "")
