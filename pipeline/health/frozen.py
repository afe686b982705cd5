"""Rules on metrics that never change at all."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.of_each import OfEach
from pipeline.health.verdict import Evidence, RuleVerdict


class FrozenRule(OfEach):
    """Fires when nothing that is meant changes any more: to the last bit the same in the last `reports` reports.

    It judges all of its metrics together. One that still changes is proof that something is learnt, and a term whose
    coefficient is 0 never does. Values that have improved on the first one, and zeros, are no failure: a loss can reach
    its end.
    """

    verdict: RuleVerdict = "reward_plateau"
    reports: int | None = Field(default=100, ge=2)
    """None: only a training that has ended is judged."""
    zeros: bool = False
    """Whether a value of 0 counts too."""
    at_end: int = Field(default=50, ge=0)
    """So many reports are enough for a training that has ended without a single change; 0: they are not."""

    def condition(self) -> str:
        return f"{self.shown} and every other one of them is exactly the same"

    def persistence(self) -> str:
        whole = f"from the start to the end, {self.at_end} reports and more" if self.at_end else ""
        return "; or ".join(
            part for part in (f"{self.reports} reports in a row" if self.reports else "", whole) if part
        )

    @property
    def of_beginnings(self) -> bool:
        return self.reports is None

    @property
    def patient(self) -> bool:
        return True

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        return []

    def _columns(self, history: History) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {metric: self.judged(history, metric) for metric in self.meant(history)}

    def firings(self, history: History) -> list[Evidence]:
        if self.reports is None:
            return []
        columns = self._columns(history)
        # A metric freezes at the report that completes a run of equal values, and thaws at the next that differs.
        frozen: dict[str, list[tuple[int, float, int]]] = {}
        for metric, (steps, values) in columns.items():
            frozen[metric] = [
                (int(steps[first + self.reports - 1]), np.inf if end == len(values) else float(steps[end]), first)
                for first, end in _runs(values)
                if end - first >= self.reports
            ]
        found = []
        for metric, spans in frozen.items():
            steps, values = columns[metric]
            for at, until, first in spans:
                if not self._is_bad(values, first):
                    continue
                together = max([at, *(self._joined(frozen[other], at, until) for other in frozen if other != metric)])
                if together < until:
                    found.append(self._evidence(metric, steps, values, first, int(np.searchsorted(steps, together))))
        found.sort(key=lambda evidence: evidence.detection_step or 0)
        return found[:1]

    @staticmethod
    def _joined(spans: list[tuple[int, float, int]], at: int, until: float) -> float:
        """When, from `at` on, another metric is frozen too; infinite: not before `until`."""
        return min((max(at, begun) for begun, thawed, _ in spans if begun < until and thawed > at), default=np.inf)

    def at_exit(self, history: History) -> list[Evidence]:
        columns = self._columns(history)
        changes = any(len(values) < self.at_end or len(_runs(values)) > 1 for _, values in columns.values())
        if not self.at_end or changes:
            return []
        for metric, (steps, values) in columns.items():
            if self._is_bad(values, 0):
                return [self._evidence(metric, steps, values, 0, len(values) - 1)]
        return []

    def _is_bad(self, values: np.ndarray, first: int) -> bool:
        """Whether a value that stays as it is at this index is a failure."""
        value, began = values[first], values[0]
        return bool(np.isfinite(value) and (value != 0 or self.zeros) and (first == 0 or not value < began))

    def _evidence(self, metric: str, steps: np.ndarray, values: np.ndarray, first: int, end: int) -> Evidence:
        end = min(end, len(values) - 1)
        return Evidence(
            rule=self.name,
            metric=metric,
            values=tuple(values[max(first, end - 9) : end + 1].tolist()),
            threshold=f"exactly {values[first]:.6g} in {end - first + 1} reports in a row",
            onset_step=int(steps[first]),
            last_good_step=int(steps[first - 1]) if first else None,
            detection_step=int(steps[end]),
        )

    def explain(self, history: History) -> str:
        columns = self._columns(history)
        longest = [f"{name} {max((end - first for first, end in _runs(values)), default=0)}"
                   for name, (_, values) in columns.items()]  # fmt: skip
        more = f", and {len(longest) - 3} more" if len(longest) > 3 else ""
        return f"reports in a row without a change: {', '.join(longest[:3])}{more}"


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of equal values, as (first, end); NaN equals nothing."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(values)], strict=True)) if len(values) else []
