"""Rules on explosions: a metric far above all that this run has been like."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import Field, model_validator

from pipeline.health.history import History
from pipeline.health.of_each import OfEach
from pipeline.health.persistence import incidents
from pipeline.health.returns import explained, scores_among
from pipeline.health.rule import Curves
from pipeline.health.verdict import Evidence, RuleVerdict

_MOST = 0.84
_GROWTH = 10.0
"""A score explains a loss that rises where it is so many times larger than most of the run's past."""


class ExplosionRule(OfEach):
    """Fires when a metric stays far above its own past.

    The bound is `factor` times the size below which 84 % of all earlier values lie: a σ above the median, whatever
    their spread. It is `above` at least. Zeros and the sign say nothing of the level. Only positive values explode: a
    loss that falls far below 0 is a good one. Where a score grows too, as when the first reward is found, what its
    square explains is no explosion.
    """

    verdict: RuleVerdict = "gradient_explosion"
    above: float = Field(default=100.0, ge=0)
    factor: float = Field(default=1000.0, ge=1)
    grace: int = Field(default=2, ge=1)
    """Earlier values without which there is no bound."""
    window: int = Field(default=6, ge=1)
    """Reports of the metric."""
    patience: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _can_fire(self) -> ExplosionRule:
        if self.patience > self.window:
            raise ValueError(f"patience={self.patience} can never be reached in a window of {self.window} reports")
        return self

    def condition(self) -> str:
        return f"{self.shown} > {self.above:g} and > {self.factor:g} × the size of 84 % of the values before"

    def persistence(self) -> str:
        return f"{self.patience} of {self.window} reports"

    @property
    def patient(self) -> bool:
        return True

    def may_hold(self, metric: str, value: float) -> bool:
        return value > self.above

    def bounds(self, values: np.ndarray) -> np.ndarray:
        """The bound at each of the values (n,): (n,), NaN where there is none yet, or none is needed."""
        found = np.full(len(values), np.nan)
        sizes = np.abs(values)
        known = np.isfinite(sizes) & (sizes > 0)
        logs: list[float] = []
        for index in range(len(values)):
            if (new := index - self.window) >= 0 and known[new]:
                insort(logs, math.log(sizes[new]))
            if len(logs) < self.grace or not values[index] > self.above:
                continue
            level = logs[int(_MOST * (len(logs) - 1) + 0.5)]
            found[index] = max(self.above, self.factor * math.exp(min(level, 600.0)))
        return found

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        listed = tuple(names)
        return tuple(dict.fromkeys((*super().reads(listed), *scores_among(listed))))

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        return self._above(metric, steps, values, np.zeros(len(steps)))

    def firings(self, history: History) -> list[Evidence]:
        found = []
        for metric in self.meant(history):
            steps, values = self.judged(history, metric)
            sizes, _ = explained(history, steps, growth=_GROWTH, lag=self.window)
            found += self._above(metric, steps, values, np.nan_to_num(sizes))
        return sorted(found, key=lambda evidence: evidence.detection_step or 0)

    def _above(self, metric: str, steps: np.ndarray, values: np.ndarray, by_scores: np.ndarray) -> list[Evidence]:
        bounds = np.maximum(self.bounds(values), by_scores)  # NaN stays NaN
        with np.errstate(invalid="ignore"):
            hit = values > bounds
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=tuple(values[start : end + 1].tolist()),
                threshold=f"> {bounds[end]:.3g}, far above the run's own past, {self.persistence()}",
                onset_step=int(steps[onset]),
                last_good_step=int(steps[onset - 1]) if onset else None,
                detection_step=int(steps[end]),
            )
            for onset, start, end in incidents(hit, self.window, self.patience)
        ]

    def worsening(self, history: History, evidence: Evidence) -> Mapping[str, int]:
        return {evidence.metric: 1} if evidence.metric is not None else {}

    def explain(self, history: History) -> str:
        told = []
        for metric in self.meant(history)[:3]:
            values = self.judged(history, metric)[1]
            sizes = np.abs(values[np.isfinite(values) & (values != 0)])
            level = f"median {np.median(sizes):.3g}, largest {sizes.max():.3g}" if len(sizes) else "no level"
            told.append(f"{metric}: {level}")
        return ", ".join(told)

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        assert evidence.metric is not None
        steps, values = history.series(evidence.metric)
        limit = self.bounds(values)
        if evidence.detection_step is not None:
            limit = np.where(steps <= evidence.detection_step, limit, np.nan)
        return (Curves(evidence.metric, steps, values, limits=(limit,)),)
