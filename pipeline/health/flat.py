"""Rules on a score that stands still for long, whatever phase it has reached and however many attempts it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.rule import Curves, Rule, has_fallen_due
from pipeline.health.verdict import Evidence, RuleVerdict

_FULL = 0.99
"""A window counts as full from this share of its episodes: the history does not say how many ended before the first
update that reports any."""
_LEAST_UPDATES = 30
"""Updates in a window without which the normal distribution is no help."""
_JOINED = 500
"""Episodes on either side of the beginning of an attempt whose scores are compared."""
_FELL = NormalDist().inv_cdf(0.99)
"""So many standard errors lower, an attempt has certainly lost something on its way from the one before."""


class Scores(NamedTuple):
    """The scores of a run and of those that it continues, (n,) each, one value for each update in which games ended."""

    steps: np.ndarray
    values: np.ndarray
    episodes: np.ndarray
    """Episodes that had ended by then."""
    clock: np.ndarray
    """Those of them that ended in phases in which the score should rise."""
    weight: np.ndarray
    """Episodes that ended in the update."""
    own: int
    """The index at which the run itself begins."""
    joins: tuple[int, ...]
    """The indices at which attempts begin that continue another one with another configuration."""


class Look(NamedTuple):
    """What a look found in its window. Gains are per 1000 episodes, in units of the score."""

    first: int
    """Index of the first value of the window."""
    last: int
    gain: float
    upper: float
    """The bound that the gain is certainly below."""
    mean: float
    holds: bool


class FlatRule(Rule):
    """The score has certainly gained less than `expected_gain` per 1000 episodes: a sequential test of its slope.

    A look falls due every `check_every` episodes. Its window reaches back over `window_episodes` of `phases`, in which
    the score should rise; later episodes belong to it too, but need not gain. So x, what a healthy score has had to
    grow by, stands still in fine-tune:

        u = y · (1 + expected_gain)^(−x / 1000)

    is level or rises in every healthy run, one that converges in fine-tune included, and falls where the score stood
    still before. The rule fires where the slope of u over x, fitted by least squares, is certainly below 0. An update
    weighs as many episodes as ended in it. Scores vary in proportion to their mean, so u varies evenly, and its slope
    is normal (some hundred updates). Games that end in fine-tune tell what the score had come to before it.

    Each look is another chance to be wrong. The k-th one has 2 / ((k + 1) (k + 2)) of `wrong`, so over all looks of a
    run of any length they add up to it: a group-sequential test whose spending function is k / (k + 2) (Lan & DeMets
    1983), with Bonferroni's bound instead of the looks' correlation. It spends slowly, because a score may stand still
    from any episode on.

    The scores before the checkpoint from which an attempt continues count (`History.past`), and the looks that have
    fallen due in them. Where an attempt has another configuration than the one before it, and begins certainly lower
    than that had ended, what was before does not count: it may be on its way back.
    """

    verdict: RuleVerdict = "reward_plateau"
    metric: str = "score"
    expected_gain: float = Field(default=0.15, gt=0)
    """What a healthy score gains per 1000 episodes at least, in units of itself."""
    window_episodes: int = Field(default=2000, ge=2)
    """Episodes in `phases` over which it is judged."""
    check_every: int = Field(default=500, ge=1)
    wrong: float = Field(default=0.01, gt=0, lt=0.5)
    """The chance that a run which gains just that is ever taken for one that stands still."""

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric, "episodes")

    @property
    def of_lineage(self) -> bool:
        return True

    def condition(self) -> str:
        return (
            f"upper bound of the gain in `{self.metric}` over {self.window_episodes} episodes "
            f"< {self.expected_gain:.0%} per 1000, with {1 - self.wrong:.0%} confidence over the whole run"
        )

    def persistence(self) -> str:
        return f"one look every {self.check_every} episodes, over all attempts that a run continues"

    @property
    def patient(self) -> bool:
        return True

    @property
    def least_episodes(self) -> int:
        return math.ceil(_FULL * self.window_episodes / self.check_every) * self.check_every

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a look has fallen due since the last one, as far as the episodes tell."""
        return super().stirs(latest, before) and has_fallen_due(latest, before, self.check_every)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return self.metrics

    def scores(self, history: History) -> Scores:
        """The scores of a history, after those of its past, as long as its episodes are counted on from there."""
        parts, changed, run = [self._of(history)], [False], history
        while (past := run.past) is not None and len(parts[0][0]):
            before = self._of(past)
            if len(before[0]) and before[2][-1] > parts[0][2][0]:
                break
            changed[0] = changed[0] or not run.unchanged
            parts, changed, run = [before, *parts], [False, *changed], past
        steps, values, episodes, rises = (np.concatenate(each) for each in zip(*parts, strict=True))
        episodes = np.maximum.accumulate(episodes) if len(episodes) else episodes
        weight = np.maximum(np.diff(episodes, prepend=episodes[:1] - 1), 0.0)
        begins = np.cumsum([0, *(len(part[0]) for part in parts)])[:-1].tolist()
        joins = tuple(begin for begin, anew in zip(begins, changed, strict=True) if anew and begin)
        return Scores(steps, values, episodes, np.cumsum(weight * rises), np.maximum(weight, 1.0), begins[-1], joins)

    def _of(self, history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps, scores, episodes, and whether the score should rise: (n,) each, of one run."""
        steps, columns = history.aligned(self.metrics)
        known = np.isfinite(columns[self.metric]) & np.isfinite(columns["episodes"])
        rises = np.ones(len(steps), bool) if self.phases is None else np.isin(columns["phase"], self.phases)
        return steps[known], columns[self.metric][known], columns["episodes"][known], rises[known]

    def looks(self, scores: Scores) -> list[Look]:
        """The looks that have fallen due in the run itself."""
        number, found = 0, []
        for end in np.flatnonzero(np.diff(scores.episodes // self.check_every, prepend=0) > 0) + 1:
            begin = max((join for join in scores.joins if join < end and _fell(scores, join, int(end))), default=0)
            if scores.clock[end - 1] - scores.clock[begin] < _FULL * self.window_episodes - 1:
                continue
            number += 1
            if end > scores.own and (look := self._look(scores, begin, int(end), number)) is not None:
                found.append(look)
        return found

    def _look(self, scores: Scores, begin: int, end: int, number: int) -> Look | None:
        """The look of this number, from 1. None: its window cannot be judged."""
        since = scores.clock[end - 1] - self.window_episodes
        first = max(begin, int(np.searchsorted(scores.clock[:end], since, side="right")))
        if end - first < _LEAST_UPDATES:
            return None
        y, x, w = scores.values[first:end], scores.clock[first:end] / 1000, scores.weight[first:end]
        x = x - np.average(x, weights=w)
        log_gain = math.log1p(self.expected_gain)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.average(y, weights=w))
            # A score that is not positive cannot grow by a factor; it should rise by as much on a line.
            u = y * np.exp(-log_gain * x) if mean > 0 else y - self.expected_gain * abs(mean) * x
            spread = float((w * x * x).sum())
            level = float(np.average(u, weights=w))
            slope = float((w * x * (u - level)).sum()) / spread if spread > 0 else math.nan
            error = math.sqrt(float((w * (u - level - slope * x) ** 2).sum()) / (end - first - 2) / spread)
        if not math.isfinite(slope) or not math.isfinite(error):
            return None
        bound = NormalDist().inv_cdf(1 - 2 * self.wrong / ((number + 1) * (number + 2)))
        upper, grows = slope + bound * error, self.expected_gain * abs(mean)
        # A score that is always 0 gains nothing, and 0 is what it should gain.
        return Look(first, end - 1, slope + grows, upper + grows, mean, upper < 0 or not y.any())

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first: looks in a row are one.

        No weights are broken, so every checkpoint up to the detection is good to start from.
        """
        scores = self.scores(history)
        looks = self.looks(scores)
        held = [False, *(look.holds for look in looks)]
        return [
            self._evidence(scores, look)
            for look, (before, now) in zip(looks, pairwise(held), strict=True)
            if now and not before
        ]

    def _evidence(self, scores: Scores, look: Look) -> Evidence:
        share = 1 / abs(look.mean) if look.mean else 0.0
        episodes = scores.episodes[look.first], scores.episodes[look.last]
        return Evidence(
            rule=self.name,
            metric=self.metric,
            values=(look.mean,),
            threshold=f"gain {look.gain * share:+.0%} per 1000 episodes from {episodes[0]:.0f} to {episodes[1]:.0f}, "
            f"{look.upper * share:+.0%} at most; {self.expected_gain:+.0%} and more is healthy",
            onset_step=int(min(scores.steps[look.first], scores.steps[look.last])),
            last_good_step=int(scores.steps[look.last]),
            detection_step=int(scores.steps[look.last]),
            detail={
                "gain": look.gain,
                "at_most": look.upper,
                "mean": look.mean,
                "episodes": [float(each) for each in episodes],
                "gaining_episodes": float(scores.clock[look.last] - scores.clock[look.first]),
            },
        )

    def explain(self, history: History) -> str:
        looks = self.looks(self.scores(history))
        if not looks:
            return f"no look has fallen due, the first after {self.least_episodes} episodes in which it should rise"
        share = 1 / abs(looks[-1].mean) if looks[-1].mean else 0.0
        return f"gain per 1000 episodes: {looks[-1].gain * share:+.0%}, {looks[-1].upper * share:+.0%} at most"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """The score with its fitted trend."""
        detail, end, trend = evidence.detail, evidence.detection_step, None
        if {"mean", "gain", "gaining_episodes"} <= detail.keys() and end is not None:
            half = detail["gain"] * detail["gaining_episodes"] / 2000
            trend = (evidence.onset_step or 0, detail["mean"] - half), (end, detail["mean"] + half)
        return (Curves(self.metric, *history.series(self.metric), trend=trend, noisy=True),)


def _fell(scores: Scores, join: int, end: int) -> bool:
    """Whether an attempt that begins at an index began certainly lower than the one before it had ended."""
    before = slice(int(np.searchsorted(scores.episodes[:join], scores.episodes[join - 1] - _JOINED, "right")), join)
    after = slice(join, int(np.searchsorted(scores.episodes[:end], scores.episodes[join] + _JOINED)))
    (old, old_error), (new, new_error) = (_mean(scores, each) for each in (before, after))
    return old - new > _FELL * math.hypot(old_error, new_error)


def _mean(scores: Scores, part: slice) -> tuple[float, float]:
    """The mean of some values, and its standard error; infinite, where they are too few."""
    y, w = scores.values[part], scores.weight[part]
    if len(y) < 10:
        return 0.0, math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(np.average(y, weights=w))
        return mean, math.sqrt(float((w * (y - mean) ** 2).sum()) / (len(y) - 1) / float(w.sum()))
