"""Rules on explosions at the outset of a run: a metric stays far above its first reports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.names import has_word, is_of_training
from pipeline.health.of_each import OfEach
from pipeline.health.persistence import incidents
from pipeline.health.returns import explained, scores_among
from pipeline.health.verdict import Evidence, RuleVerdict

PARTS = ("d", "g", "disc", "discriminator", "gen", "generator", "adv", "actor", "critic", "policy", "value", "vf",
         "pg", "q", "td", "entropy", "kl", "aux")  # fmt: skip
"""Words of losses that need not fall: of opponents, and of the parts of reinforcement learning."""
_FIRST, _LEAST = 3, 6
"""Reports whose smallest size is the start, and reports without which nothing is found."""
_LOW = 0.16


class OutsetRule(OfEach):
    """Fires when a metric leaves its first reports far below, soon, and does not come back.

    The start is the smallest size among the first three finite reports, and at least `floor`. While training goes on,
    only what rises by `factor` within `soon` reports, and stays, is certain. When it has ended, the last third of the
    reports tells: nearly all of it (84 %) above `stays` times the start; or `after_peak`, where a report was above
    `factor`.

    In reinforcement learning the loss of a critic grows with the square of the returns. So what the scores explain is
    no explosion, and without scores nothing is certain where there are losses of parts.
    """

    verdict: RuleVerdict = "gradient_explosion"
    factor: float = Field(default=1000.0, ge=1)
    stays: float = Field(default=100.0, ge=1)
    after_peak: float = Field(default=10.0, ge=1)
    floor: float = Field(default=1.0, gt=0)
    soon: int = Field(default=10, ge=1)
    """Reports."""
    lasts: int = Field(default=20, ge=1)
    """Reports in a row, of which nine in ten count."""
    certain: bool = True
    """False: also where there are losses of parts and no scores."""

    def condition(self) -> str:
        return (
            f"{self.shown} > {self.factor:g} × its first reports, or at the end > {self.stays:g} × "
            f"({self.after_peak:g} × after a peak), and more than the scores explain"
        )

    def persistence(self) -> str:
        needed = self._needed
        return f"{needed} of {self.lasts} reports, from one of the first {self.soon} on; or the last third"

    @property
    def _needed(self) -> int:
        return -(-9 * self.lasts // 10)

    @property
    def patient(self) -> bool:
        return True

    def may_hold(self, metric: str, value: float) -> bool:
        return value > self.factor * self.floor

    def _start(self, values: np.ndarray) -> float:
        finite = np.abs(values[np.isfinite(values)][:_FIRST])
        return max(self.floor, float(finite.min())) if len(finite) else np.inf

    def _explained(self, history: History, steps: np.ndarray) -> np.ndarray:
        """Sizes (n,) that the scores up to each of the steps (n,) explain; infinite: only scores could tell."""
        sizes, scored = explained(history, steps)
        parts = any(
            is_of_training(name) and has_word(name, ("loss", "losses", "*loss")) and has_word(name, PARTS)
            for name in history.metrics
        )
        unknown = np.inf if self.certain and (parts or scored) else 0.0
        return np.where(np.isnan(sizes), unknown, sizes)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        listed = tuple(names)
        losses = (name for name in listed if is_of_training(name) and has_word(name, ("loss", "losses", "*loss")))
        return tuple(dict.fromkeys((*super().reads(listed), *scores_among(listed), *losses)))

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        return self._soon(metric, steps, values, np.zeros(len(steps)))

    def firings(self, history: History) -> list[Evidence]:
        found = []
        for metric in self.meant(history):
            steps, values = self.judged(history, metric)
            found += self._soon(metric, steps, values, self._explained(history, steps))
        return sorted(found, key=lambda evidence: evidence.detection_step or 0)

    def _soon(self, metric: str, steps: np.ndarray, values: np.ndarray, by_scores: np.ndarray) -> list[Evidence]:
        bounds = np.maximum(self.factor * self._start_so_far(values), by_scores)
        with np.errstate(invalid="ignore"):
            hit = np.isfinite(values) & (values > bounds)
        return [
            self._evidence(metric, steps, values, onset, end, self.factor, f"{end - onset + 1} reports on end")
            for onset, _, end in incidents(hit, self.lasts, self._needed)
            if onset < self.soon
        ][:1]

    def _start_so_far(self, values: np.ndarray) -> np.ndarray:
        """The start (n,) as it is known at each of the values (n,): infinite before there is one."""
        known = np.cumsum(np.isfinite(values))
        sizes = np.where(np.isfinite(values) & (known <= _FIRST), np.abs(values), np.inf)
        return np.maximum(self.floor, np.minimum.accumulate(sizes)) if len(values) else sizes

    def at_exit(self, history: History) -> list[Evidence]:
        found = []
        for metric in self.meant(history):
            steps, values = self.judged(history, metric)
            steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
            if len(values) < _LEAST:
                continue
            start, last = self._start(values), values[-(len(values) // 3) :]
            peaked = bool((values > self.factor * start).any())
            factor = self.after_peak if peaked else self.stays
            level = float(np.quantile(last, _LOW, method="lower"))
            if level > max(factor * start, float(self._explained(history, steps)[-1])):
                below = np.flatnonzero(values <= factor * start)
                onset = int(below[-1]) + 1
                onset = min(onset, len(values) - len(last))
                why = "in nearly all of the last third" + (", after a peak" if peaked else "")
                found.append(self._evidence(metric, steps, values, onset, len(values) - 1, factor, why))
        return found

    def _evidence(
        self, metric: str, steps: np.ndarray, values: np.ndarray, onset: int, end: int, factor: float, lasting: str
    ) -> Evidence:
        start = self._start(values)
        return Evidence(
            rule=self.name,
            metric=metric,
            values=tuple(values[max(onset, end - 9) : end + 1].tolist()),
            threshold=f"> {factor * start:.3g}: {factor:g} × its start of {start:.3g}, {lasting}",
            onset_step=int(steps[onset]),
            last_good_step=int(steps[onset - 1]) if onset else None,
            detection_step=int(steps[end]),
        )

    def explain(self, history: History) -> str:
        told = []
        for metric in self.meant(history)[:3]:
            values = self.judged(history, metric)[1]
            finite = values[np.isfinite(values)]
            what = f"start {self._start(values):.3g}, largest {finite.max():.3g}" if len(finite) else "never finite"
            told.append(f"{metric}: {what}")
        return ", ".join(told)
