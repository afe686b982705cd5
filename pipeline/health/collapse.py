"""Rules on a performance that was learnt, and is lost again."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.names import should_fall
from pipeline.health.of_each import OfEach
from pipeline.health.rule import Curves
from pipeline.health.verdict import Evidence, RuleVerdict


class CollapseRule(OfEach):
    """Fires when a score that had clearly risen above its start has lost most of that gain for a long while.

    Scores are smoothed by a running median over `smooth` reports. A gain counts as clear when it is `clear` times the
    noise: the median difference of neighbouring reports, scaled to σ. The loss must last for `lasts` reports
    in a row, and for `share` of all reports so far: policies do fall and recover.
    """

    verdict: RuleVerdict = "performance_collapse"
    direction: Literal["max", "min"] | None = None
    """What is better; default: by the name (a loss or an error should fall)."""
    lost: float = Field(default=0.75, gt=0, le=1)
    """Share of the gain."""
    clear: float = Field(default=2.0, gt=0)
    smooth: int = Field(default=10, ge=1)
    lasts: int = Field(default=50, ge=1)
    share: float = Field(default=0.25, gt=0, lt=1)
    share_at_end: float = Field(default=0.1, gt=0, lt=1)
    """The same where training has ended: nothing can recover any more."""

    def condition(self) -> str:
        return f"{self.shown} has lost {self.lost:.0%} of what it had gained above its start"

    def persistence(self) -> str:
        return (
            f"{self.lasts} reports in a row, and {self.share:.0%} of all; {self.share_at_end:.0%} of all where "
            "training has ended"
        )

    @property
    def patient(self) -> bool:
        return True

    def _measured(self, metric: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Smoothed scores (m,), the bound below which the gain is lost (m,), reports in a row below it (m,)."""
        sign = -1.0 if (self.direction or ("min" if should_fall(metric) else "max")) == "min" else 1.0
        if len(values) < 2 * self.smooth + 1:
            return np.array([]), np.array([]), np.array([], dtype=int)
        windows = np.lib.stride_tricks.sliding_window_view(sign * values, self.smooth)
        level = np.median(windows, axis=1)
        best = np.maximum.accumulate(level)
        start = min(level[0], sign * values[0])  # what learns fast has risen before the first window is full
        gain = best - start
        # Differences of neighbours: a fall is one of them. The largest noise so far counts: it may grow with the score.
        steps = np.lib.stride_tricks.sliding_window_view(abs(np.diff(values)), self.smooth)
        noise = np.maximum.accumulate(np.median(steps, axis=1)) * (1.4826 / math.sqrt(2))
        noise = np.r_[noise[0], noise]
        bound = np.where(gain > self.clear * noise, best - self.lost * gain, -np.inf)
        low = level < bound
        count, in_a_row = 0, np.zeros(len(low), dtype=int)
        for index in np.flatnonzero(low):
            count = count + 1 if index and low[index - 1] else 1
            in_a_row[index] = count
        return sign * level, sign * bound, in_a_row

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        finite = np.isfinite(values)
        steps, values = steps[finite], values[finite]
        level, bound, in_a_row = self._measured(metric, values)
        needed = np.maximum(self.lasts, np.ceil(self.share * (np.arange(len(level)) + self.smooth)))
        enough = in_a_row >= needed
        first = np.flatnonzero(enough & ~np.r_[False, enough][:-1])
        return [self._evidence(metric, steps, values, level, bound, int(end), int(in_a_row[end])) for end in first]

    def find_at_exit(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        finite = np.isfinite(values)
        steps, values = steps[finite], values[finite]
        level, bound, in_a_row = self._measured(metric, values)
        if not len(level) or in_a_row[-1] < max(2 * self.smooth, math.ceil(self.share_at_end * len(values))):
            return []
        return [self._evidence(metric, steps, values, level, bound, len(level) - 1, int(in_a_row[-1]))]

    def _evidence(
        self,
        metric: str,
        steps: np.ndarray,
        values: np.ndarray,
        level: np.ndarray,
        bound: np.ndarray,
        end: int,
        count: int,
    ) -> Evidence:
        offset = self.smooth - 1
        falling = level[end] > bound[end]  # what should fall is above its bound
        best_at = int(np.argmin(level[: end + 1]) if falling else np.argmax(level[: end + 1]))
        best = float(level[best_at])
        began = (bound[end] - (1 - self.lost) * best) / self.lost
        return Evidence(
            rule=self.name,
            metric=metric,
            values=tuple(values[max(0, end + offset - 9) : end + offset + 1].tolist()),
            threshold=f"{'>' if falling else '<'} {bound[end]:.3g}: {self.lost:.0%} of the gain from {began:.3g} to "
            f"{best:.3g} is lost, {count} reports in a row",
            onset_step=int(steps[end + offset - count + 1]),
            last_good_step=int(steps[best_at + offset]),
            detection_step=int(steps[end + offset]),
            detail={"start": began, "best": best},
        )

    def explain(self, history: History) -> str:
        told = []
        for metric in self.meant(history)[:3]:
            values = self.judged(history, metric)[1]
            level, _, in_a_row = self._measured(metric, values[np.isfinite(values)])
            what = f"lost its gain for {in_a_row.max()} reports at most" if len(level) else "too few reports"
            told.append(f"{metric} {what}")
        return ", ".join(told)

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        assert evidence.metric is not None
        return (Curves(evidence.metric, *history.series(evidence.metric), noisy=True),)
