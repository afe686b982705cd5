"""What it costs to get to a score: steps and minutes until an attempt's running score first reaches a target.

The running score is the curve of the page: the mean over the last `training.score_window` episodes, from the tenth
episode on. A trainer of the user's own logs none, so nothing is known of its attempts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.compare.frames import Comparison
from pipeline.health.readings import written

COLUMNS = ("target", "target_reached", "steps_to_target", "minutes_to_target")
NOT_REACHED = "not reached"
_OPEN = ("running", "interrupted")
"""Verdicts of attempts that may have reached the target later."""


def default_target(night: Comparison) -> float:
    """The lowest of the rungs' median final scores, of attempts that were trained to their end; NaN without any.

    So half of the attempts of each such rung have reached it.
    """
    whole = night.attempts[night.attempts.to_the_end]
    curves = {run: night.running_score(run) for run in whole.run_id}
    finals = pd.Series({run: curve.value.iloc[-1] for run, curve in curves.items() if len(curve)}, dtype=float)
    return float(finals.groupby(whole.set_index("run_id").rung).median().min()) if len(finals) else np.nan


def to_target(night: Comparison, target: float | None = None) -> pd.DataFrame:
    """One row for each attempt, indexed by its run id, with the columns :data:`COLUMNS`.

    | column | type | meaning |
    |---|---|---|
    | target | float | the score; default :func:`default_target` |
    | target_reached | bool or NA | whether the running score has reached it; NA: it has no running score |
    | steps_to_target | Int64 | environment steps of this attempt alone until then; NA: not reached |
    | minutes_to_target | float | minutes from the attempt's start until then; NaN: not reached |

    What a warm start has carried over is not counted.
    """
    target = default_target(night) if target is None else target
    rows = []
    for row in night.attempts.itertuples():
        curve = night.running_score(row.run_id)
        reached = curve[curve.value >= target]
        known = len(curve) > 0 and bool(np.isfinite(target))
        steps = minutes = None
        if known and len(reached):
            steps = max(0, int(reached.step.iloc[0]) - (row.steps - row.trained_steps))
            minutes = max(0.0, float(reached.minutes.iloc[0] - row.begins))
        rows.append((target, len(reached) > 0 if known else None, steps, minutes))
    found = pd.DataFrame(rows, columns=list(COLUMNS), index=pd.Index(night.attempts.run_id))
    return found.astype(
        {"target": float, "target_reached": "boolean", "steps_to_target": "Int64", "minutes_to_target": float}
    )


def with_target(night: Comparison, target: float | None = None) -> pd.DataFrame:
    """The frame `attempts` with the columns of :func:`to_target`."""
    return night.attempts.join(to_target(night, target), on="run_id")


def by_rung(night: Comparison, target: float | None = None) -> pd.DataFrame:
    """One row a rung: how many attempts there are, how many reached the target, and the median steps and minutes.

    An attempt that has not reached it counts as later than any that has; a median that falls on such a one is NaN.
    Attempts that are still running, or were interrupted, count only where they have reached it.
    """
    every = with_target(night, target)
    known = every[every.target_reached.notna()]
    known = known[known.target_reached.astype(bool) | ~known.verdict.isin(_OPEN)]
    rows = [
        {
            "rung": rung,
            "attempts": len(group),
            "reached": int(group.target_reached.sum()),
            "steps": _median(group.steps_to_target.astype(float)),
            "minutes": _median(group.minutes_to_target),
        }
        for rung, group in known.groupby("rung", sort=False)
    ]
    return pd.DataFrame(rows, columns=["rung", "attempts", "reached", "steps", "minutes"]).set_index("rung")


def to_score(target: float) -> str:
    """The name of the column."""
    return f"cost to score {written(target)}"


def cost(reached: bool | None, steps: float, minutes: float) -> str:
    """Steps and minutes in words: `12,288 steps, 1.2 min`."""
    if reached is None or pd.isna(reached):
        return "–"
    return f"{steps:,.0f} steps, {minutes:.1f} min" if reached else NOT_REACHED


def cost_of_rung(row: pd.Series) -> str:
    """A row of :func:`by_rung` in words; the median may not be known."""
    of = f"{row.reached:.0f} of {row.attempts:.0f}"
    return f"{of}: {cost(True, row.steps, row.minutes)}" if np.isfinite(row.steps) else f"{of}: {NOT_REACHED} by half"


def _median(values: pd.Series) -> float:
    """The median, where what is missing is larger than anything; NaN: it is not known."""
    ordered = np.sort(values.fillna(np.inf).to_numpy())
    if not len(ordered) or not np.isfinite(ordered[len(ordered) // 2]):
        return np.nan
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
