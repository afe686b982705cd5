"""A rule on trainings that end as if they were done, and are not."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.rule import Curves, Rule
from pipeline.health.verdict import Evidence, RuleVerdict


class UnfinishedRule(Rule):
    """Fires at the end of a training whose `progress` says that much of it is missing.

    A loop may report its progress before each of its rounds, so the last round counts as done: the largest of the last
    few steps of the progress is added to its last value. A progress that is NaN in the end says nothing.
    """

    verdict: RuleVerdict = "unfinished"
    metric: str = "progress"
    least: float = Field(default=0.99, gt=0, le=1)

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric,)

    def condition(self) -> str:
        return f"`{self.metric}` and one more step of it < {self.least:g}"

    def persistence(self) -> str:
        return "when the training has ended with exit code 0"

    def firings(self, history: History) -> list[Evidence]:
        return []

    def stirs(self, latest: object, before: object) -> bool:
        return False

    def _expected(self, history: History) -> tuple[np.ndarray, np.ndarray, float]:
        """Steps (n,) and values (n,) of the progress, and where the round that began last has ended."""
        steps, values = history.series(self.metric)
        told = len(values) > 0 and bool(np.isfinite(values[-1]))
        steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
        if not told:
            return steps, values, np.nan
        rises = np.diff(values, prepend=0.0 if len(values) == 1 else values[0])[-5:]
        return steps, values, float(values[-1] + max(0.0, rises.max()))

    def at_exit(self, history: History) -> list[Evidence]:
        steps, values, expected = self._expected(history)
        if not expected < self.least or (len(values) == 1 and values[0] == 0):
            return []
        return [
            Evidence(
                rule=self.name,
                metric=self.metric,
                values=tuple(values[-10:].tolist()),
                threshold=f"< {self.least:g} as the training ended with exit code 0",
                onset_step=int(steps[-1]),
                last_good_step=int(steps[-1]),
                detection_step=int(steps[-1]),
            )
        ]

    def explain(self, history: History) -> str:
        return f"{self.metric} {self._expected(history)[2]:.3g} at the end, with its last round"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        steps, values = history.series(self.metric)
        return (Curves(self.metric, steps, values, limits=(np.full(len(steps), self.least),)),)
