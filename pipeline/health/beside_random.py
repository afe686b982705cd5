"""Rules on a score beside that of random play: whether anything has been learnt at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from pydantic import Field

from pipeline.health.gain import gain
from pipeline.health.history import History
from pipeline.health.rule import Curves, Rule, has_fallen_due
from pipeline.health.verdict import Evidence, RuleVerdict

_FULL = 0.99
"""So many episodes have ended from this share of them on: the history does not say how many ended before the first
update that reports any."""
_SIGMAS = 2 * NormalDist().inv_cdf(0.975)
"""Width of a 95 % interval in standard errors."""


class Check(NamedTuple):
    """The mean score of the last episodes beside a bar: a multiple of random play's mean."""

    first: int
    """The first and the last step of the window."""
    last: int
    mean: float
    upper: float
    """What the mean, less the bar, is certainly below."""
    holds: bool


class BesideRandomRule(Rule):
    """Compares the mean score of the last `window_episodes` with that of random play, every `check_every` episodes.

    It fires where the score is certainly below the bar: random play's mean, plus `margin` times its absolute value.
    That no difference can be *seen* proves nothing. Each further check is another chance to be wrong, so the k-th one
    has 1 / (k (k + 1)) of `wrong`: over all checks they add up to it, however long the run is (a union bound). The
    error of random play's mean, which is measured in some games, counts as often as the mean does.
    """

    verdict: RuleVerdict = "reward_plateau"
    metric: str = "score"
    baseline: str = "random/score"
    """The metric that has random play's mean; `…_low` and `…_high` have its 95 % interval."""
    from_episode: int = Field(default=1000, ge=10)
    """Episodes of the run before which nothing is said."""
    window_episodes: int = Field(default=500, ge=10)
    check_every: int = Field(default=500, ge=1)
    margin: float = Field(default=0.0, ge=0)
    """In units of random play's mean, without its sign. 0: the bar is random play's mean itself."""
    wrong: float = Field(default=0.05, gt=0, lt=0.5)
    """The chance that a score which is at the bar is ever taken for one below it."""
    spares_gains: bool = False
    """Whether a run goes on while a gain can be seen in its score, from the first third of its updates to the last."""

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric, "episodes", *self._of_random)

    @property
    def _of_random(self) -> tuple[str, str, str]:
        return self.baseline, f"{self.baseline}_low", f"{self.baseline}_high"

    @property
    def _times(self) -> str:
        return f"{1 + self.margin:g} × " if self.margin else ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Without those of random play, which are logged once, at a step of their own."""
        return tuple(name for name in super().metrics if name not in self._of_random)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*self.metrics, *self._of_random)

    def condition(self) -> str:
        return (
            f"upper {1 - self.wrong:.0%} bound of the mean of `{self.metric}` over the last {self.window_episodes} "
            f"episodes < {self._times}`{self.baseline}`" + (", and no gain can be seen" if self.spares_gains else "")
        )

    def persistence(self) -> str:
        return f"one check every {self.check_every} episodes, from {self.from_episode} on"

    @property
    def patient(self) -> bool:
        return True

    @property
    def least_episodes(self) -> int:
        return math.ceil(_FULL * self._least / self.check_every) * self.check_every

    @property
    def _least(self) -> int:
        return max(self.from_episode, self.window_episodes)

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a check has fallen due since the last look, as far as the episodes tell."""
        return super().stirs(latest, before) and has_fallen_due(latest, before, self.check_every)

    def checks(self, history: History) -> list[Check]:
        """Each check with enough episodes."""
        random = self._random(history)
        if random is None:
            return []
        mean, low, high = random
        bar, error_of_bar = self._bar(mean), (1 + self.margin) * (high - low) / _SIGMAS
        steps, columns = history.aligned(self.metrics)
        known = np.isfinite(columns[self.metric]) & np.isfinite(columns["episodes"])
        if self.phases is not None:
            known &= np.isin(columns["phase"], self.phases)
        steps, score, episodes = steps[known], columns[self.metric][known], columns["episodes"][known]
        episodes = np.maximum.accumulate(episodes) if len(episodes) else episodes
        weight = np.maximum(np.diff(episodes, prepend=episodes[:1] - 1), 1.0)
        found: list[Check] = []
        for last in np.flatnonzero(np.diff(episodes // self.check_every, prepend=0) > 0):
            if episodes[last] - episodes[0] < _FULL * self._least - 1:
                continue
            first = int(np.searchsorted(episodes, episodes[last] - self.window_episodes, side="right"))
            y, w = score[first : last + 1], weight[first : last + 1]
            if len(y) < 10:
                continue
            own = float(np.average(y, weights=w))
            variance = float((w * (y - own) ** 2).sum()) / (len(y) - 1) / float(w.sum())
            number = len(found) + 1
            sigmas = NormalDist().inv_cdf(1 - self.wrong / (number * (number + 1)))
            upper = own - bar + sigmas * math.sqrt(variance + error_of_bar**2)
            holds = upper < 0 and not (self.spares_gains and _gains(score[: last + 1]))
            found.append(Check(int(steps[first]), int(steps[last]), own, upper, holds))
        return found

    def _bar(self, mean: float) -> float:
        """What the score must be certainly below, given random play's mean, which may be negative."""
        return mean + self.margin * abs(mean)

    def _random(self, history: History) -> tuple[float, float, float] | None:
        """Random play's mean and its 95 % interval; None: it is not there."""
        values = [history.series(name)[1] for name in self._of_random]
        if not all(len(each) and np.isfinite(each[-1]) for each in values):
            return None
        mean, low, high = (float(each[-1]) for each in values)
        return mean, low, high

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first: checks in a row are one.

        No weights are broken, so every checkpoint up to the detection is good to start from.
        """
        checks = self.checks(history)
        held = [False, *(check.holds for check in checks)]
        return [
            self._evidence(history, check)
            for check, (before, now) in zip(checks, pairwise(held), strict=True)
            if now and not before
        ]

    def _evidence(self, history: History, check: Check) -> Evidence:
        mean, low, high = self._random(history) or (math.nan, math.nan, math.nan)
        return Evidence(
            rule=self.name,
            metric=self.metric,
            values=(check.mean,),
            threshold=f"mean of {self.window_episodes} episodes, certainly below {self._times}random play's {mean:.3g} "
            f"[{low:.3g}, {high:.3g}]: by {-check.upper:.3g} at least, with {1 - self.wrong:.0%} confidence",
            onset_step=check.first,
            last_good_step=check.last,
            detection_step=check.last,
            detail={"random": mean, "difference": check.mean - mean},
        )

    def explain(self, history: History) -> str:
        if absent := [name for name in self._of_random if name not in history]:
            return f"{absent[0]} was never logged"
        checks = self.checks(history)
        if not checks:
            return f"no check has fallen due, the first after {self._least} episodes"
        newest = checks[-1]
        gains = ", and a gain can be seen" if newest.upper < 0 else ""
        return f"{self.metric} {newest.mean:.3g}, less {self._times}random play's {newest.upper:+.3g} at most{gains}"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """The score beside the bar."""
        steps, values = history.series(self.metric)
        limit = np.full(len(values), self._bar(evidence.detail.get("random", np.nan)))
        return (Curves(self.metric, steps, values, limits=(limit,), noisy=True),)


def _gains(score: np.ndarray) -> bool:
    """Whether a gain can be seen in a score (n,), or it is too short to tell."""
    found = gain(score)
    return found is None or found.seen
