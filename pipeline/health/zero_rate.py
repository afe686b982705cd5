"""A rule on learning rates that are logged, and are 0 from the start to the end."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from pipeline.health.gain import FEW, gain
from pipeline.health.history import History
from pipeline.health.names import NO_LEVELS, has_word, is_of_training, should_fall, should_rise
from pipeline.health.of_each import AtTheEnd
from pipeline.health.verdict import Evidence, RuleVerdict


class ZeroRateRule(AtTheEnd):
    """Fires at the end of a training all of whose learning rates were exactly 0 in every report.

    Warm-up begins at 0 and schedules end there, so one report above 0 is proof. A group of frozen parameters may have
    a rate of 0, so one rate above 0 is proof too. A script may round what it logs; so with `no_gain` it takes a loss
    or a score that was reported often enough, and that none of them has gained.
    """

    verdict: RuleVerdict = "reward_plateau"
    zero_reports: int = Field(default=10, ge=2)
    """Reports without which nothing is found."""
    no_gain: bool = False
    """Fire only if no loss and no score has gained anything either."""

    def condition(self) -> str:
        also = ", and no gain can be seen in any loss or score" if self.no_gain else ""
        return f"{self.shown} is exactly 0, and so is every other one of them{also}"

    def persistence(self) -> str:
        return f"from the start to the end, {self.zero_reports} reports and more"

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        listed = tuple(names)
        beside = (name for name in listed if self.no_gain and _tells(name))
        return tuple(dict.fromkeys((*super().reads(listed), *beside)))

    def at_exit(self, history: History) -> list[Evidence]:
        rates = {metric: self.judged(history, metric) for metric in self.meant(history)}
        if not rates or any(len(values) < self.zero_reports or values.any() for _, values in rates.values()):
            return []
        if self.no_gain and not _is_without_gain(history):
            return []
        metric, (steps, values) = next(iter(rates.items()))
        also = ", and no gain can be seen in any loss or score" if self.no_gain else ""
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=tuple(values[-10:].tolist()),
                threshold=f"exactly 0 in all {len(values)} reports: nothing can be learnt{also}",
                onset_step=int(steps[0]),
                last_good_step=None,
                detection_step=int(steps[-1]),
            )
        ]

    def explain(self, history: History) -> str:
        told = []
        for metric in self.meant(history)[:3]:
            values = self.judged(history, metric)[1]
            told.append(f"{metric}: 0 in {int((values == 0).sum())} of {len(values)} reports")
        return ", ".join(told)


def _tells(name: str) -> bool:
    """Whether a metric is a loss or a score whose gain is proof that something is learnt."""
    return is_of_training(name) and (should_fall(name) or should_rise(name)) and not has_word(name, NO_LEVELS)


def _is_without_gain(history: History) -> bool:
    """Whether there are losses or scores with enough reports, and none of them has gained anything."""
    signed = ((-1.0 if should_fall(name) else 1.0, name) for name in history.metrics if _tells(name))
    gains = [found for sign, name in signed if (found := gain(sign * history.series(name)[1], FEW)) is not None]
    return bool(gains) and not any(each.seen for each in gains)
