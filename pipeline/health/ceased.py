"""A rule on metrics that are no longer logged while the training goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.names import has_word, is_of_training, words
from pipeline.health.of_each import AtTheEnd
from pipeline.health.verdict import Evidence, RuleVerdict

_MOST_OTHERS = 20
"""Further metrics that show that the training goes on."""
_HELD_OUT = ("val", "valid", "validation", "test", "dev", "eval", "evaluation")


class _Silence(NamedTuple):
    """How a metric fell silent, counted in the reports of another one."""

    reports: int
    """Since its last value."""
    gap: int
    """At most, between two of its values."""
    other: str


class CeasedRule(AtTheEnd):
    """Fires at the end of a training in which a metric was no longer logged while others went on.

    The gap is counted in the reports of another metric that was logged in between, so that neither the unit of the
    steps nor the clock counts, and is compared with the metric's own gaps: an evaluation at each hundredth report is
    silent for a hundred. A metric is not missed where its like goes on or has taken over: `task_2/loss` after
    `task_1/loss`.
    """

    verdict: RuleVerdict = "numerical_instability"
    silent_reports: int = Field(default=20, ge=1)
    silent_gaps: float = Field(default=10.0, ge=1)
    """Times its longest gap before."""
    silent_share: float = Field(default=0.02, ge=0, lt=1)
    """Of all reports of the other metric."""
    least_values: int = Field(default=5, ge=3)
    """Values that a metric must have had."""

    def condition(self) -> str:
        return f"{self.shown} is no longer logged while other metrics are"

    def persistence(self) -> str:
        return (
            f"when the training has ended with exit code 0: {self.silent_reports} reports of another metric and more, "
            f"and {self.silent_gaps:g} times its own longest gap"
        )

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        names = list(names)
        meant = super().reads(names)
        others = sorted(
            (name for name in names if name not in meant and is_of_training(name)), key=lambda n: (len(n), n)
        )
        return (*meant, *others[:_MOST_OTHERS])

    def at_exit(self, history: History) -> list[Evidence]:
        orders = history.orders(name for name in history.metrics if is_of_training(name) and name != "phase")
        found: list[Evidence] = []
        seen: set[bytes] = set()
        for metric in self.among(orders):
            same = orders[metric].tobytes() + history.series(metric)[1].tobytes()
            if same in seen:
                continue  # the same metric by another name
            seen.add(same)
            silence = self._silence(metric, orders)
            if silence is None or self._is_replaced(metric, orders):
                continue
            steps, values = history.series(metric)
            last = int(history.series(silence.other)[0][-1])
            found.append(
                Evidence(
                    rule=self.name,
                    metric=metric,
                    values=tuple(values[-10:].tolist()),
                    threshold=f"never logged after step {steps[-1]}, while {silence.other} went on for "
                    f"{silence.reports} reports, to step {last}; its longest gap before: {silence.gap}",
                    onset_step=int(steps[-1]),
                    last_good_step=int(steps[-1]),
                    detection_step=max(last, int(steps[-1])),
                )
            )
        return found

    def _silence(self, metric: str, orders: dict[str, np.ndarray]) -> _Silence | None:
        """The longest silence of a metric; None: it was logged to the end, or too seldom to tell."""
        own, found = orders[metric], []
        if len(own) < self.least_values:
            return None
        for other, order in orders.items():
            places = np.searchsorted(order, own, side="right")
            gaps = np.diff(places)
            if other == metric or not np.median(gaps) >= 1:
                continue  # it was not logged in between, so it counts nothing
            silence = _Silence(int(len(order) - places[-1]), int(gaps.max()), other)
            least = max(self.silent_reports, self.silent_gaps * silence.gap, self.silent_share * len(order))
            if silence.reports >= least:
                found.append(silence)
        return max(found, default=None)

    def _is_replaced(self, metric: str, orders: dict[str, np.ndarray]) -> bool:
        """Whether a metric with the same name but for a number goes on, or one of its kind has begun since."""
        end, kind = orders[metric][-1], words(metric)[-1:]
        for other, order in orders.items():
            if other == metric or order[-1] <= end:
                continue
            if re.sub(r"\d+", "#", other) == re.sub(r"\d+", "#", metric):
                return True
            if order[0] > end and has_word(other, kind) and not has_word(other, _HELD_OUT):
                return True
        return False

    def explain(self, history: History) -> str:
        return f"{self.subject} was logged up to the end, or no more seldom than before"
