"""What a run's history says of the objective: its value at the end, its error, and its values on the way."""

from __future__ import annotations

import math

import numpy as np

from pipeline.attempt.record import Attempt
from pipeline.health.history import History, is_finite
from pipeline.tracking.store import Store
from pipeline.tuning.study import StudySection

REPORT_EVERY = 5
"""Per cent of a trial between two intermediate values. All trials report at the same points, whenever they are polled,
because a pruner compares values at equal steps."""


def measured(store: Store, study: StudySection, attempt: Attempt) -> tuple[float | None, float | None]:
    """The objective at the end of an attempt, which may not be finite, and its standard error within the run.

    Each is None if it is unknown.
    """
    metric, share = study.objective.metric, study.objective.average_over
    history = store.history(attempt.run_id, [metric, "score", "episodes"])
    steps, values = history.series(metric)
    if not len(values):
        return None, None
    inside = last_values(steps, values, steps[-1], share)
    value = float(inside.mean())
    if not is_finite(value):
        return value, None
    if share:
        return value, float(inside.std(ddof=1)) / math.sqrt(len(inside)) if len(inside) > 1 else None
    window = attempt.config.training.score_window
    return value, windowed_error(history, window) if metric == "score_window" else None


def last_values(steps: np.ndarray, values: np.ndarray, until: float, share: float) -> np.ndarray:
    """The values that were reported in the last `share` of the steps up to `until`; the last one at least.

    Args:
        steps: (n,), ascending.
        values: (n,).
        until: step up to which values count; one of them does at least.
        share: between 0 and 1.
    """
    end = int(np.searchsorted(steps, until, side="right"))
    begin = min(int(np.searchsorted(steps, (1 - share) * until, side="right")), end - 1)
    return values[begin:end]


def windowed_error(history: History, window: int) -> float | None:
    """Standard error of the mean score over the last `window` episodes; None if fewer than two updates are in it.

    It is computed from the means of the updates, weighted by the episodes that ended in each. It says how well this
    run's score is known. It does not say how much the score of another seed would differ.
    """
    _, both = history.aligned(["score", "episodes"])
    score, episodes = both["score"], both["episodes"]
    if not len(score):
        return None
    inside = episodes > episodes[-1] - window
    weight = np.maximum(np.diff(episodes, prepend=0.0), 0.0)[inside]
    score = score[inside]
    count = int(np.count_nonzero(weight))
    if count < 2:
        return None
    mean = np.average(score, weights=weight)
    spread = float((weight**2 * (score - mean) ** 2).sum())
    return math.sqrt(spread * count / (count - 1)) / float(weight.sum())


def points(history: History, metric: str, reported: int, share: float = 0.0) -> list[tuple[int, float]]:
    """(per cent of the run, the objective there) at each point that has been reached and is not reported yet."""
    at, progress = history.series("progress")
    steps, values = history.series(metric)
    found = []
    for percent in range(reported + REPORT_EVERY, 101, REPORT_EVERY):
        reached = np.flatnonzero(progress >= percent / 100 - 1e-9)
        if not len(reached):
            break
        until = at[reached[0]]
        if len(steps) and steps[0] <= until:
            found.append((percent, float(last_values(steps, values, until, share).mean())))
    return found
