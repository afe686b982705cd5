"""Health rules as data, and their evaluation as pure functions of histories.

A rule says: this metric, beyond this bound, in these phases, so many times among the last so many updates, means
that verdict. Two sets ship: `seed`, the brief to the letter, and `v3`, calibrated so that healthy runs stay quiet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.health.history import History
from pipeline.health.verdict import Evidence, TrainingFailure

WARMUP, TRANSITION, FINETUNE = 0, 1, 2
_MAD_TO_SIGMA = 1.4826
_FULL = 0.99
"""Of a window of episodes: how many ended before the first update that tells of any is not known."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Condition(_Data):
    """A bound on one metric. Several bounds given here must all be crossed."""

    metric: str
    above: float | None = None
    below: float | None = None
    outside: tuple[float, float] | None = None
    above_median: float | None = None
    """Above this many times the median of all values before the window."""
    above_mad: float | None = None
    """Above the median of log values before the window by this many (normal-consistent) median absolute deviations."""

    @model_validator(mode="after")
    def _bounded(self) -> Condition:
        if not self.threshold():
            raise ValueError(f"{self.metric} needs a bound: above, below, outside, above_median, above_mad")
        return self

    def threshold(self) -> str:
        """The bound in words."""
        parts = []
        if self.above is not None:
            parts.append(f"> {self.above:g}")
        if self.below is not None:
            parts.append(f"< {self.below:g}")
        if self.outside is not None:
            parts.append(f"outside {self.outside[0]:g} – {self.outside[1]:g}")
        if self.above_median is not None:
            parts.append(f"> {self.above_median:g} × the run's median")
        if self.above_mad is not None:
            parts.append(f"> median + {self.above_mad:g} MAD of the run, in logarithms")
        return " and ".join(parts)

    def crossed(self, values: np.ndarray, window: int, reference: int) -> np.ndarray:
        """(n,) bool. Bounds relative to the run need `reference` values before the window; without, not crossed."""
        hit = np.ones(len(values), dtype=bool)
        if self.above is not None:
            hit &= values > self.above
        if self.below is not None:
            hit &= values < self.below
        if self.outside is not None:
            hit &= (values < self.outside[0]) | (values > self.outside[1])
        if self._is_relative:
            for index in np.flatnonzero(hit):  # seldom many: an absolute bound comes first
                hit[index] = values[index] > self._relative_bound(values, int(index), window, reference)
        return hit

    def may_be_crossed(self, value: float) -> bool:
        """Whether a value crosses all the bounds that are not relative to the run."""
        return (
            (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.outside is None or not self.outside[0] <= value <= self.outside[1])
        )

    @property
    def _is_relative(self) -> bool:
        return self.above_median is not None or self.above_mad is not None

    def _relative_bound(self, values: np.ndarray, index: int, window: int, reference: int) -> float:
        """The larger of the bounds that follow the run, at one index; infinite while too little is known."""
        before = values[: max(0, index - window + 1)]
        if len(before) < max(reference, 1):
            return float("inf")
        bounds = []
        if self.above_median is not None:
            bounds.append(self.above_median * float(np.median(before)))
        if self.above_mad is not None:
            logs = np.log(np.maximum(before, 1e-12))
            median = float(np.median(logs))
            spread = max(_MAD_TO_SIGMA * float(np.median(abs(logs - median))), 0.05)
            bounds.append(float(np.exp(median + self.above_mad * spread)))
        return max(bounds)

    def limits(self, values: np.ndarray, window: int, reference: int) -> list[np.ndarray]:
        """The bounds as curves (n,) beside the values (n,), for a picture; NaN where there is none yet."""
        fixed = [self.above, self.below, *(self.outside or ())]
        curves = [np.full(len(values), bound) for bound in fixed if bound is not None]
        if self._is_relative:
            relative = [self._relative_bound(values, index, window, reference) for index in range(len(values))]
            curves.append(np.where(np.isfinite(relative), relative, np.nan))
        return curves


class Rule(_Data):
    """All conditions at one step, `patience` times among the last `window` updates."""

    name: str
    verdict: TrainingFailure
    conditions: tuple[Condition, ...] = Field(min_length=1)
    phases: tuple[int, ...] | None = None
    """Only in these (0 warm-up, 1 transition, 2 fine-tune); None: always."""
    grace: int = Field(default=0, ge=0)
    """Updates at the start of an attempt that are not judged; also how many values a relative bound needs."""
    window: int = Field(default=1, ge=1)
    patience: int = Field(default=1, ge=1)
    clear: int = Field(default=3, ge=1)
    """Hysteresis: so many updates in a row on the good side end an incident."""
    action: Literal["warn", "fail"] = "fail"
    meaning: str = ""
    """What a bad value looks like, and what to do."""

    @model_validator(mode="after")
    def _can_fire(self) -> Rule:
        if self.patience > self.window:
            raise ValueError(f"patience={self.patience} can never be reached in a window of {self.window} updates")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that is needed to judge."""
        names = tuple(dict.fromkeys(condition.metric for condition in self.conditions))
        return names if self.phases is None else (*names, "phase")

    def violations(self, history: History) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Steps (n,), whether all conditions are crossed at each (n,), and the metrics' values.

        In the grace period too: it is not judged, but a failure that began there did begin there.
        """
        steps, values = history.aligned(self.metrics)
        hit = np.ones(len(steps), dtype=bool)
        for condition in self.conditions:
            hit &= condition.crossed(values[condition.metric], self.window, self.grace)
        if self.phases is not None:
            hit &= np.isin(values["phase"], self.phases)
        return steps, hit, values

    def closest(self, history: History) -> tuple[int, int] | None:
        """Most violations in any window that is judged, and the step at which it ends; None: nothing to judge."""
        steps, hit, _ = self.violations(history)
        judged = hit.astype(int)
        judged[: self.grace] = 0
        if len(judged) <= self.grace:
            return None
        counts = np.convolve(judged, np.ones(self.window, dtype=int))[: len(judged)]
        most = int(counts.argmax())
        return int(counts[most]), int(steps[most])

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether newest values by themselves are reason enough to look at the complete history.

        True wherever they may cross all conditions: a bound relative to the run is taken as crossed.
        """
        if any(metric not in latest for metric in self.metrics):
            return False
        if self.phases is not None and latest["phase"] not in self.phases:
            return False
        return all(each.may_be_crossed(latest[each.metric]) for each in self.conditions)

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first, with the evidence at the moment it does."""
        steps, hit, values = self.violations(history)
        found: list[Evidence] = []
        onset: int | None = None
        good, fired = 0, False
        for index in range(len(steps)):
            if not hit[index]:
                good += 1
                if good >= self.clear:
                    onset, fired = None, False
                continue
            good = 0
            onset = index if onset is None else onset
            start = max(0, index - self.window + 1)
            judged = max(start, self.grace)
            if not fired and hit[judged : index + 1].sum() >= self.patience:
                fired = True
                # An incident that was thought to be over, but lies in this window, belongs to it.
                first = min(onset, start + int(np.argmax(hit[start : index + 1])))
                found.append(self._evidence(steps, values, first, start, index))
        return found

    def _evidence(self, steps: np.ndarray, values: dict[str, np.ndarray], onset: int, start: int, end: int) -> Evidence:
        first, *others = self.conditions
        return Evidence(
            rule=self.name,
            metric=first.metric,
            values=tuple(float(value) for value in values[first.metric][start : end + 1]),
            threshold=f"{first.threshold()}, {self.patience} of {self.window} updates",
            onset_step=int(steps[onset]),
            last_good_step=int(steps[onset - 1]) if onset else None,
            detection_step=int(steps[end]),
            detail={
                f"{other.metric} {other.threshold()}": [float(value) for value in values[other.metric][start : end + 1]]
                for other in others
            },
        )


class PlateauRule(_Data):
    """The gain over the last `window_episodes` is certainly small: an equivalence test, not a missing trend.

    A straight line is fitted to the episodes' scores in the window (weighted by the episodes of each update). The
    rule fires when the upper one-sided 95 % bound of the fitted gain lies below `relative_gain` × the mean score.
    That no trend can be *seen* proves nothing: it is so on 57 % of checks of runs that do improve.
    """

    name: str = "reward_plateau"
    verdict: TrainingFailure = "reward_plateau"
    metric: str = "score"
    window_episodes: int = Field(default=1000, ge=2)
    relative_gain: float = 0.10
    check_every: int = Field(default=500, ge=1)
    """Episodes between two checks; each check is a chance of a false alarm."""
    patience: int = Field(default=2, ge=1)
    """Checks in a row."""
    phases: tuple[int, ...] | None = None
    """Only while in these; None: always."""
    action: Literal["warn", "fail"] = "fail"
    meaning: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        names = (self.metric, "episodes")
        return names if self.phases is None else (*names, "phase")

    @property
    def least_episodes(self) -> int:
        """With which it can fire: a full window at the first check, and the checks that must follow."""
        return (math.ceil(_FULL * self.window_episodes / self.check_every) + self.patience - 1) * self.check_every

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a check has fallen due between two polls."""
        if any(metric not in latest for metric in self.metrics):
            return False
        since = before.get("episodes", 0.0)
        return latest["episodes"] // self.check_every > since // self.check_every

    def gain(self, score: np.ndarray, episodes: np.ndarray) -> tuple[float, float, float] | None:
        """(gain, its upper 95 % bound, mean) over the window that ends with the last value; None: window not full."""
        weight = np.diff(episodes, prepend=episodes[0] - 1)
        inside = episodes > episodes[-1] - self.window_episodes
        if episodes[-1] - episodes[0] < _FULL * self.window_episodes - 1 or inside.sum() < 10:
            return None
        x, y, w = episodes[inside].astype(float), score[inside], np.maximum(weight[inside], 1.0)
        x = x - np.average(x, weights=w)
        mean = float(np.average(y, weights=w))
        spread = float((w * x * x).sum())
        if spread == 0:
            return None
        slope = float((w * x * (y - mean)).sum()) / spread
        residual = float((w * (y - mean - slope * x) ** 2).sum()) / (len(y) - 2)
        error = float(np.sqrt(residual / spread))
        length = self.window_episodes
        return slope * length, (slope + 1.645 * error) * length, mean

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first.

        The onset is the first step of the window. The weights are not broken by a plateau, so everything up to the
        detection counts as good to start from.
        """
        steps, values = history.aligned(self.metrics)
        found: list[Evidence] = []
        in_a_row: list[tuple[int, float]] = []
        # A check falls due at the first update that passes another `check_every` episodes.
        due = np.flatnonzero(np.diff(values["episodes"] // self.check_every, prepend=0) > 0) + 1
        for end in due:
            judged = self.phases is None or values["phase"][end - 1] in self.phases
            measured = self.gain(values[self.metric][:end], values["episodes"][:end]) if judged else None
            # Of a score that is always 0, both are 0: it does not rise either.
            if measured is None or measured[1] > self.relative_gain * abs(measured[2]):
                in_a_row = []
                continue
            in_a_row.append((int(end) - 1, measured[1]))
            if len(in_a_row) == self.patience:
                begun = values["episodes"][in_a_row[0][0]] - self.window_episodes
                onset = int(steps[int(np.searchsorted(values["episodes"], begun, side="right"))])
                found.append(
                    Evidence(
                        rule=self.name,
                        metric=self.metric,
                        values=tuple(bound for _, bound in in_a_row),
                        threshold=f"upper 95 % bound of the gain over {self.window_episodes} episodes below "
                        f"{self.relative_gain:.0%} of the mean {measured[2]:.3g}",
                        onset_step=onset,
                        last_good_step=int(steps[end - 1]),
                        detection_step=int(steps[end - 1]),
                        detail={"gain": measured[0], "mean": measured[2]},
                    )
                )
        return found


AnyRule = Rule | PlateauRule
