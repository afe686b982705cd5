"""Rules on a score beside that of random play: whether anything has been learnt at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.rule import Curves, Rule, has_fallen_due
from pipeline.health.verdict import Evidence, RuleVerdict

_FULL = 0.99
"""So many episodes have ended from this share of them on: the history does not say how many ended before the first
update that reports any."""
_SIGMAS = 2 * NormalDist().inv_cdf(0.975)
"""Width of a 95 % interval in standard errors."""
_WRONG = 0.05
"""The chance that a bound is ever wrong, at any of all checks together."""


class Beside(NamedTuple):
    """A score less that of random play, at one check."""

    difference: float
    upper: float
    """A bound; with 95 % confidence, none of all checks' is wrong."""


class BesideRandomRule(Rule):
    """Compares the mean score of the last `window_episodes` with that of random play, every `check_every` episodes.

    It fires where the score is certainly less than `margin` × random play's mean above it. That no difference can be
    *seen* proves nothing. Each further check is another chance to be wrong, so the k-th one has 1 / (k (k + 1)) of the
    5 %: over all checks they add up to it, however long the run is (a union bound). The interval of random play counts
    too.
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
    """In units of random play's mean; 0: the score is certainly below."""

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric, "episodes", *self._of_random)

    @property
    def _of_random(self) -> tuple[str, str, str]:
        return self.baseline, f"{self.baseline}_low", f"{self.baseline}_high"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Without those of random play, which are logged once, at a step of their own."""
        return tuple(name for name in super().metrics if name not in self._of_random)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*self.metrics, *self._of_random)

    def condition(self) -> str:
        bound = f"`{self.baseline}`" + (f" × {1 + self.margin:g}" if self.margin else "")
        return f"upper bound of the mean of `{self.metric}` over the last {self.window_episodes} episodes < {bound}"

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

    def checks(self, history: History) -> list[tuple[int, int, Beside]]:
        """Each check with enough episodes: the first and the last step of the window, and the comparison."""
        random = [history.series(name)[1] for name in self._of_random]
        if not all(len(values) and np.isfinite(values[-1]) for values in random):
            return []
        mean, low, high = (float(values[-1]) for values in random)
        steps, columns = history.aligned(self.metrics)
        known = np.isfinite(columns[self.metric]) & np.isfinite(columns["episodes"])
        if self.phases is not None:
            known &= np.isin(columns["phase"], self.phases)
        steps, score, episodes = steps[known], columns[self.metric][known], columns["episodes"][known]
        episodes = np.maximum.accumulate(episodes) if len(episodes) else episodes
        weight = np.maximum(np.diff(episodes, prepend=episodes[:1] - 1), 1.0)
        found: list[tuple[int, int, Beside]] = []
        for last in np.flatnonzero(np.diff(episodes // self.check_every, prepend=0) > 0):
            if episodes[last] - episodes[0] < _FULL * self._least - 1:
                continue
            first = int(np.searchsorted(episodes, episodes[last] - self.window_episodes, side="right"))
            y, w = score[first : last + 1], weight[first : last + 1]
            if len(y) < 10:
                continue
            own = float(np.average(y, weights=w))
            variance = float((w * (y - own) ** 2).sum()) / (len(y) - 1) / float(w.sum())
            check = len(found) + 1
            wide = NormalDist().inv_cdf(1 - _WRONG / (check * (check + 1)))
            wide *= math.sqrt(variance + ((high - low) / _SIGMAS) ** 2)
            found.append((int(steps[first]), int(steps[last]), Beside(own - mean, own - mean + wide)))
        return found

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first: checks in a row are one.

        No weights are broken, so every checkpoint up to the detection is good to start from.
        """
        checks = self.checks(history)
        least = self.margin * float(history.series(self.baseline)[1][-1]) if checks else 0.0
        held = [False, *(found.upper < least for _, _, found in checks)]
        return [
            self._evidence(history, *check)
            for check, before, now in zip(checks, held, held[1:], strict=False)
            if now and not before
        ]

    def _evidence(self, history: History, first: int, last: int, found: Beside) -> Evidence:
        mean, low, high = (float(history.series(name)[1][-1]) for name in self._of_random)
        return Evidence(
            rule=self.name,
            metric=self.metric,
            values=(mean + found.difference,),
            threshold=f"mean of {self.window_episodes} episodes, random play {mean:.3g} [{low:.3g}, {high:.3g}]: "
            f"{found.upper:+.3g} above it at most, with 95 % confidence",
            onset_step=first,
            last_good_step=last,
            detection_step=last,
            detail={"random": mean, "difference": found.difference},
        )

    def explain(self, history: History) -> str:
        if absent := [name for name in self._of_random if name not in history]:
            return f"{absent[0]} was never logged"
        checks = self.checks(history)
        if not checks:
            return f"no check has fallen due, the first after {self._least} episodes"
        found = checks[-1][-1]
        return f"{self.metric} less random play's: {found.difference:+.3g}, {found.upper:+.3g} at most"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """The score beside random play's mean."""
        steps, values = history.series(self.metric)
        limit = np.full(len(values), evidence.detail.get("random", np.nan))
        return (Curves(self.metric, steps, values, limits=(limit,), noisy=True),)
