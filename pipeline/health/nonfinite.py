"""Rules on NaN and ±∞: a metric that is no number any more, and stays so."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field, model_validator

from pipeline.health.history import History, is_finite
from pipeline.health.of_each import OfEach
from pipeline.health.persistence import incidents
from pipeline.health.rule import between
from pipeline.health.verdict import Evidence, RuleVerdict

NOT_FINITE = "NaN or infinite"
"""The threshold of their evidence."""


class NonFiniteRule(OfEach):
    """Fires when a metric is NaN or infinite in `patience` of its last `window` reports, or as training ends.

    A metric may be NaN from its beginning in healthy runs, as the mean of nothing: an agent that only fills its replay
    buffer has no loss. So what comes before the first finite value counts only when there are `never` such reports.
    """

    verdict: RuleVerdict = "numerical_instability"
    window: int = Field(default=5, ge=1)
    """Reports of the metric."""
    patience: int = Field(default=5, ge=1)
    never: int = Field(default=100, ge=1)
    """Reports without any finite value from which on they count."""
    at_end: int = Field(default=1, ge=0)
    """So many last reports of a training that has ended are reason enough; 0: they are not."""

    @model_validator(mode="after")
    def _can_fire(self) -> NonFiniteRule:
        if self.patience > self.window:
            raise ValueError(f"patience={self.patience} can never be reached in a window of {self.window} reports")
        return self

    def condition(self) -> str:
        return f"{self.shown} is NaN or infinite"

    def persistence(self) -> str:
        end = f", or the last {self.at_end} of an ended training" if self.at_end else ""
        return f"{self.patience} of {self.window} reports{end}"

    def may_hold(self, metric: str, value: float) -> bool:
        return not is_finite(value)

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        odd = ~np.isfinite(values)
        first_number = int(np.argmin(odd)) if not odd.all() else len(odd)
        judged = odd.copy()
        judged[: min(first_number, max(0, self.never - self.patience))] = False
        return [
            self._evidence(metric, steps, values, onset if onset > first_number else 0, start, end)
            for onset, start, end in incidents(judged, self.window, self.patience)
        ]

    def worsening(self, history: History, evidence: Evidence) -> Mapping[str, int]:
        """Losses and gradients often grow before they are no numbers any more."""
        return {evidence.metric: 1} if evidence.metric is not None else {}

    def held(self, history: History) -> list[tuple[np.ndarray, np.ndarray]]:
        """Before its first finite value a metric may be NaN."""
        columns = [self.judged(history, metric) for metric in self.among(history.metrics)]
        return [(steps, ~np.isfinite(values) & np.logical_or.accumulate(np.isfinite(values)))
                for steps, values in columns]  # fmt: skip

    def find_at_exit(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        finite = np.flatnonzero(np.isfinite(values))
        onset = int(finite[-1]) + 1 if len(finite) else 0
        if not self.at_end or not len(values) or len(values) - onset < min(self.at_end, len(values)):
            return []
        return [self._evidence(metric, steps, values, onset, max(onset, len(values) - self.window), len(values) - 1)]

    def _evidence(
        self, metric: str, steps: np.ndarray, values: np.ndarray, onset: int, start: int, end: int
    ) -> Evidence:
        return Evidence(
            rule=self.name,
            metric=metric,
            values=tuple(values[start : end + 1].tolist()),
            threshold=NOT_FINITE,
            onset_step=int(steps[onset]),
            last_good_step=int(steps[onset - 1]) if onset else None,
            detection_step=int(steps[end]),
        )

    def explain(self, history: History) -> str:
        return _each(self, history)


def _each(rule: OfEach, history: History) -> str:
    """The extremes of the metrics that a rule judges."""
    names = rule.meant(history)
    told = [f"{name} {between(history.series(name)[1])}" for name in names[:3]]
    return ", ".join(told) + (f", and {len(names) - 3} more" if len(names) > 3 else "")
