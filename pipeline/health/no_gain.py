"""A rule on trainings that have ended, and of which no gain can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.health.gain import FEW, LEAST, Gain, gain, is_noise
from pipeline.health.history import History
from pipeline.health.names import NO_LEVELS, has_word, is_of_training, should_fall
from pipeline.health.of_each import AtTheEnd
from pipeline.health.rule import Curves
from pipeline.health.verdict import Evidence, RuleVerdict

_CONSTANT_REPORTS = 50
_IDLE_REPORTS = 20
_SMALL = 0.1
"""Share of the mean below which a score's gain is none."""
_MAXIMA = (1.0, 100.0)
"""Of an accuracy, a reward or a percentage."""


class NoGainRule(AtTheEnd):
    """Fires at the end of a training none of whose metrics that are meant is better than at the start.

    It judges all of its metrics together: one that has gained is proof that something is learnt. No gain that can be
    seen is no proof that there is none, so it is a rule for a warning, unless it is to be `sure`. It says nothing of
    metrics that never change (`frozen` does), and of those with fewer than so many reports.
    """

    verdict: RuleVerdict = "reward_plateau"
    direction: Literal["max", "min"] | None = None
    """What is better; default: by the name (a loss or an error should fall)."""
    certainly_below: float = Field(default=0.0, ge=0)
    """A gain that certainly (95 %) is below this share of the mean is none either."""
    proof: tuple[str, ...] = ()
    """Words of other metrics whose gain is proof too: a loss may rise with the score."""
    reports: int = Field(default=LEAST, ge=FEW)
    """Reports of a metric without which nothing is said of it."""
    sure: bool = False
    """Whether it fires only where that is certain. Either each of the other metrics was the same to the last bit in 50
    reports and more. Or every gain is `certainly_below` its bound; where there are other metrics, theirs is below a
    tenth of the mean, and all of them are nothing but noise around a constant."""
    idle: tuple[str, ...] = ()
    """Words of further metrics. Fire only where all of those that are logged were 0 after the first third of their
    reports, and not before: an update that no longer changes anything."""

    @property
    def of_beginnings(self) -> bool:
        return True

    def condition(self) -> str:
        sure = "; and for sure: no score changes, or all is noise around a constant" if self.sure else ""
        idle = f"; and {' or '.join(self.idle)} is exactly 0 after the first third, and was not before"
        no_better = f"no gain can be seen in {self.shown}: the last third of the reports is no better than the first"
        return f"{no_better}{sure}{idle if self.idle else ''}"

    def persistence(self) -> str:
        return f"from the start to the end, {self.reports} reports and more"

    def _sign(self, metric: str) -> float:
        return -1.0 if (self.direction or ("min" if should_fall(metric) else "max")) == "min" else 1.0

    def _gains(self, history: History) -> dict[str, Gain]:
        """The gain of each metric that is meant and has enough reports, and that changes at all."""
        found = {}
        for metric in self.meant(history):
            values = self.judged(history, metric)[1]
            measured = gain(self._sign(metric) * values, self.reports)
            if measured is not None and (values != values[0]).any():
                found[metric] = measured
        return found

    def _is_seen(self, found: Gain) -> bool:
        return found.seen and not (self.certainly_below and self._is_none(found))

    def _is_none(self, found: Gain) -> bool:
        """Whether it is certain that there is no gain worth the name."""
        return found.upper < self.certainly_below * abs(found.first + found.last) / 2

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        listed = tuple(names)
        scores = filter(self._is_score, listed)
        return tuple(dict.fromkeys((*super().reads(listed), *scores, *self._idle(listed))))

    def _is_score(self, name: str) -> bool:
        """Whether it is one of the other metrics, of held-out data too."""
        return is_of_training(name) and has_word(name, self.proof) and not has_word(name, NO_LEVELS)

    def _idle(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(
            name
            for name in names
            if is_of_training(name) and has_word(name, self.idle) and not has_word(name, NO_LEVELS)
        )

    def _proofs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            name
            for name in names
            if self.proof and is_of_training(name) and has_word(name, self.proof) and not has_word(name, self.without)
        )

    def _is_certain(self, gains: Mapping[str, Gain], history: History) -> bool:
        """Whether no gain is missing from sight: none is worth the name, and nothing has happened beside noise."""
        if not all(map(self._is_none, gains.values())):
            return False
        others = [history.series(name)[1] for name in history.metrics if self._is_score(name)]
        if not others:
            return True
        measured = [(each, gain(each, self.reports)) for each in others if (each != each[0]).any()]
        if not measured or any(found is None for _, found in measured):
            return False
        small = all(
            found.upper < _SMALL * abs(found.first + found.last) / 2 and not _is_near_its_maximum(found.last)
            for _, found in measured
            if found
        )
        own = [self.judged(history, metric)[1] for metric in gains]
        return small and all(map(is_noise, [*own, *(each for each, _ in measured)]))

    def at_exit(self, history: History) -> list[Evidence]:
        gains = self._gains(history)
        if not gains or any(self._is_seen(each) for each in gains.values()):
            return []
        others = [history.series(name)[1] for name in self._proofs(history.metrics)]
        if any((found := gain(each, self.reports)) is not None and found.seen for each in others):
            return []
        if self.sure and not (others and all(map(_is_constant, others))) and not self._is_certain(gains, history):
            return []
        idle = [history.series(name)[1] for name in self._idle(history.metrics)]
        if self.idle and not (idle and all(map(_has_become_idle, idle))):
            return []
        metric, *more = gains
        steps, values = self.judged(history, metric)
        sign, found = self._sign(metric), gains[metric]
        also = f"; nor in {', '.join(more[:2])}{f' and {len(more) - 2} more' if len(more) > 2 else ''}" if more else ""
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=tuple(values[-10:].tolist()),
                threshold=f"no gain can be seen in {metric} over {len(values)} reports: mean {sign * found.first:.4g} "
                f"in the first third, {sign * found.last:.4g} in the last{also}"
                + (f"; {self._idle(history.metrics)[0]} has become 0 for good" if idle else ""),
                onset_step=int(steps[0]),
                last_good_step=int(steps[-1]),
                detection_step=int(steps[-1]),
            )
        ]

    def explain(self, history: History) -> str:
        gains = self._gains(history)
        told = [f"{name} has gained {each.sigmas:.1f} σ" for name, each in gains.items() if self._is_seen(each)]
        if told:
            return ", ".join(told[:3])
        return "another metric has gained" if gains else f"nothing that changes has {self.reports} reports"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        assert evidence.metric is not None
        return (Curves(evidence.metric, *history.series(evidence.metric), noisy=True),)


def _has_become_idle(values: np.ndarray) -> bool:
    """Whether the values were other than 0 at first, and then never again."""
    first = len(values) // 3
    return len(values) >= _IDLE_REPORTS and bool(values[:first].any()) and not values[first:].any()


def _is_near_its_maximum(level: float) -> bool:
    """Whether there is hardly anything left to gain, if it is an accuracy or a percentage."""
    return any((1 - _SMALL) * most <= level <= most for most in _MAXIMA)


def _is_constant(values: np.ndarray) -> bool:
    """Whether nothing was gained for sure; what begins at its maximum has nothing to gain."""
    return len(values) >= _CONSTANT_REPORTS and bool((values == values[0]).all()) and values[0] not in _MAXIMA
