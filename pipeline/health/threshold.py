"""Threshold rules: metrics beyond their bounds, so many times among the last so many updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.health.history import History, is_finite
from pipeline.health.persistence import incidents, last_of
from pipeline.health.rule import Curves, Data, Rule, between
from pipeline.health.verdict import Evidence

_MAD_TO_SIGMA = 1.4826
"""A median absolute deviation times this is the standard deviation of a normal distribution."""
_STORED_FIRST, _STORED_LAST = ("name", "verdict", "conditions", "phases"), ("action", "meaning")


class Condition(Data):
    """Bounds on one metric. A value crosses the condition when it crosses all of them; NaN crosses no bound."""

    metric: str = Field(min_length=1)
    above: float | None = None
    below: float | None = None
    outside: tuple[float, float] | None = None
    above_median: float | None = None
    """The bound is this many times the median of all values before the window."""
    above_mad: float | None = None
    """The bound lies so many median absolute deviations above the median of all values before the window; both are
    those of the logarithms, and the deviation is scaled to the σ of a normal distribution."""
    finite: Literal[False] | None = None
    """`false`: NaN, ∞ and −∞ cross."""

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `finite` where it asks for nothing: `health.extra` is a parameter of a run, as text."""
        data = handler(self)
        return {name: value for name, value in data.items() if name != "finite" or value is not None}

    @model_validator(mode="after")
    def _bounded(self) -> Condition:
        if not self.threshold():
            raise ValueError(f"{self.metric} needs a bound: above, below, outside, above_median, above_mad, finite")
        return self

    def threshold(self) -> str:
        """The bounds in words."""
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
        if self.finite is False:
            parts.append("NaN or infinite")
        return " and ".join(parts)

    def crossed(self, values: np.ndarray, window: int, reference: int) -> np.ndarray:
        """Which of the values (n,) cross all bounds: (n,) bool.

        A bound relative to the run needs `reference` values before the window; no value crosses it earlier.
        """
        hit = np.ones(len(values), dtype=bool)
        if self.above is not None:
            hit &= values > self.above
        if self.below is not None:
            hit &= values < self.below
        if self.outside is not None:
            hit &= (values < self.outside[0]) | (values > self.outside[1])
        if self.finite is False:
            hit &= ~np.isfinite(values)
        if self._is_relative:
            for index in np.flatnonzero(hit):  # few: most rules have an absolute bound too
                hit[index] = values[index] > self._relative_bound(values, int(index), window, reference)
        return hit

    def may_be_crossed(self, value: float) -> bool:
        """Whether a value crosses all the bounds that are not relative to the run."""
        return (
            (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.outside is None or value < self.outside[0] or value > self.outside[1])
            and (self.finite is None or not is_finite(value))
        )

    def worse_at(self, value: float) -> int:
        """The direction in which this value is too far: 1 up, −1 down, 0 none."""
        up = self.above is not None or self._is_relative or (self.outside is not None and value > self.outside[1])
        down = self.below is not None or (self.outside is not None and value < self.outside[0])
        return up - down

    @property
    def _is_relative(self) -> bool:
        return self.above_median is not None or self.above_mad is not None

    def _relative_bound(self, values: np.ndarray, index: int, window: int, reference: int) -> float:
        """The larger of the bounds relative to the run, at one index; infinite where too few values come before."""
        before = values[: max(0, index - window + 1)]
        before = before[np.isfinite(before)]
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
        """Each bound as a curve (n,) beside the values (n,); NaN where there is no bound yet."""
        fixed = [self.above, self.below, *(self.outside or ())]
        curves = [np.full(len(values), bound) for bound in fixed if bound is not None]
        if self._is_relative:
            relative = [self._relative_bound(values, index, window, reference) for index in range(len(values))]
            curves.append(np.where(np.isfinite(relative), relative, np.nan))
        return curves


class ThresholdRule(Rule):
    """All conditions hold at one update, `patience` times among the last `window` updates."""

    conditions: tuple[Condition, ...] = Field(min_length=1)
    grace: int = Field(default=0, ge=0)
    """Updates at the start of an attempt that the rule does not judge, and values that a relative bound needs."""
    window: int = Field(default=1, ge=1)
    """Updates."""
    patience: int = Field(default=1, ge=1)
    """Updates of the window at which all conditions must hold."""
    clear: int = Field(default=3, ge=1)
    """Hysteresis: so many updates in a row at which they do not hold end an incident."""

    @model_validator(mode="after")
    def _can_fire(self) -> ThresholdRule:
        if self.patience > self.window:
            raise ValueError(f"patience={self.patience} can never be reached in a window of {self.window} reports")
        return self

    @model_serializer(mode="wrap")
    def _in_stored_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields in the order that runs in stores have: `health.extra` is a parameter of a run, as text."""
        data = handler(self)
        own = (name for name in data if name not in (*_STORED_FIRST, *_STORED_LAST))
        return {name: data[name] for name in (*_STORED_FIRST, *own, *_STORED_LAST) if name in data}

    @property
    def watched(self) -> tuple[str, ...]:
        return tuple(condition.metric for condition in self.conditions)

    @property
    def _nan_of(self) -> tuple[str, ...]:
        """The metrics of which NaN is asked for."""
        return tuple(each.metric for each in self.conditions if each.finite is False)

    def condition(self) -> str:
        return " and ".join(f"`{each.metric}` {each.threshold()}" for each in self.conditions)

    def persistence(self) -> str:
        return f"{self.patience} of {self.window} reports" + (f", not the first {self.grace}" if self.grace else "")

    def title(self, evidence: Evidence) -> str:
        return " and ".join(f"{each.metric} {each.threshold()}" for each in self.conditions)

    def at_once(self) -> ThresholdRule:
        return self.model_copy(update={"window": 1, "patience": 1, "grace": 0})

    def violations(self, history: History) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Steps (n,), whether all conditions hold at each step (n,), and the values of the metrics.

        The grace period counts too: the rule does not judge it, but a failure may begin in it.
        """
        steps, values = history.aligned(self.metrics, self._nan_of)
        hit = np.ones(len(steps), dtype=bool)
        for condition in self.conditions:
            hit &= condition.crossed(values[condition.metric], self.window, self.grace)
        if self.phases is not None:
            hit &= np.isin(values["phase"], self.phases)
        return steps, hit, values

    def worsening(self, history: History, evidence: Evidence) -> Mapping[str, int]:
        found = {}
        for each in self.conditions:
            steps, values = history.series(each.metric)
            values = values[steps <= (evidence.onset_step or 0)]
            # Where other conditions must hold too, one that held from the start has not changed anything.
            always = len(self.conditions) > 1 and each.crossed(values, self.window, self.grace).all()
            if len(values) and not always and (worse := each.worse_at(float(values[-1]))):
                found[each.metric] = worse
        return found

    def held(self, history: History) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self.violations(history)[:2]]

    def closest(self, history: History) -> tuple[int, int] | None:
        """The most violations in a window, and the step at its end; None: the history ends in the grace period."""
        steps, hit, _ = self.violations(history)
        judged = hit.astype(int)
        judged[: self.grace] = 0
        if len(judged) <= self.grace:
            return None
        counts = np.convolve(judged, np.ones(self.window, dtype=int))[: len(judged)]
        most = int(counts.argmax())
        return int(counts[most]), int(steps[most])

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether the newest values may cross all conditions; a bound relative to the run counts as crossed."""
        if not super().stirs(latest, before):
            return False
        if self.phases is not None and latest["phase"] not in self.phases:
            return False
        return all(each.may_be_crossed(latest[each.metric]) for each in self.conditions)

    def firings(self, history: History) -> list[Evidence]:
        steps, hit, values = self.violations(history)
        return [
            self._evidence(steps, values, onset, start, end)
            for onset, start, end in incidents(hit, self.window, self.patience, self.clear, self.grace)
        ]

    def stirred(self, history: History, first: int, last: int) -> Evidence | None:
        steps, hit, values = self.violations(history)
        hit = hit & (steps <= last)
        half = self.model_copy(update={"patience": -(-self.patience // 2)})
        for incident in reversed(incidents(hit, half.window, half.patience, self.clear, self.grace)):
            if steps[last_of(hit, incident, self.clear)] >= first:
                return half._evidence(steps, values, *incident)
        return None

    def _evidence(self, steps: np.ndarray, values: dict[str, np.ndarray], onset: int, start: int, end: int) -> Evidence:
        first, *others = self.conditions
        return Evidence(
            rule=self.name,
            metric=first.metric,
            values=tuple(float(value) for value in values[first.metric][start : end + 1]),
            threshold=f"{first.threshold()}, {self.patience} of {self.window} reports",
            onset_step=int(steps[onset]),
            last_good_step=int(steps[onset - 1]) if onset else None,
            detection_step=int(steps[end]),
            detail={
                f"{other.metric} {other.threshold()}": [float(value) for value in values[other.metric][start : end + 1]]
                for other in others
            },
        )

    def explain(self, history: History) -> str:
        closest = self.closest(history)
        if closest is None:
            return f"the history ends in the grace period of {self.grace} reports"
        first = self.conditions[0]
        values = history.series(first.metric)[1]
        extremes = between(values)
        reached = f"at most {closest[0]} of {self.window} reports, fires at {self.patience}"
        return f"{first.metric} {extremes}, {first.threshold()} counts; {reached}"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """Each condition's metric with its bounds up to the detection: later bounds had no say in it."""
        panels = []
        for condition in self.conditions:
            steps, values = history.series(condition.metric)
            limits = condition.limits(values, self.window, self.grace)
            if evidence.detection_step is not None:
                limits = [np.where(steps <= evidence.detection_step, limit, np.nan) for limit in limits]
            panels.append(Curves(condition.metric, steps, values, limits=tuple(limits)))
        return tuple(panels)
