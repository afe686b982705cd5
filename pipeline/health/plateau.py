"""Plateau rules: the score has certainly stopped rising."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from pipeline.health.history import History
from pipeline.health.rule import Curves, Rule
from pipeline.health.verdict import Evidence, TrainingVerdict

_FULL = 0.99
"""A window counts as full from this share of its episodes: the history does not say how many ended before the first
update that reports any."""


class PlateauRule(Rule):
    """The gain over the last `window_episodes` is certainly small: an equivalence test, not a missing trend.

    A straight line is fitted to the scores in the window; an update weighs as many episodes as ended in it. The rule
    fires when the upper one-sided 95 % bound of the fitted gain lies below `relative_gain` × the mean score. A trend
    that cannot be *seen* proves nothing: 57 % of the checks of runs that do improve see none.
    """

    name: str = "reward_plateau"
    verdict: TrainingVerdict = "reward_plateau"
    metric: str = "score"
    window_episodes: int = Field(default=1000, ge=2)
    relative_gain: float = 0.10
    check_every: int = Field(default=500, ge=1)
    """Episodes between two checks; each check is a chance of a false alarm."""
    patience: int = Field(default=2, ge=1)
    """Checks in a row."""

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric, "episodes")

    @property
    def least_episodes(self) -> int:
        """The first check finds a full window, and `patience` − 1 more checks follow it."""
        return (math.ceil(_FULL * self.window_episodes / self.check_every) + self.patience - 1) * self.check_every

    def condition(self) -> str:
        return (
            f"upper 95 % bound of the gain in `{self.metric}` over {self.window_episodes} episodes "
            f"< {self.relative_gain:.0%} of its mean"
        )

    def persistence(self) -> str:
        return f"{self.patience} checks in a row, one every {self.check_every} episodes"

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a check has fallen due since the last look."""
        if not super().stirs(latest, before):
            return False
        since = before.get("episodes", 0.0)
        return latest["episodes"] // self.check_every > since // self.check_every

    def gain(self, score: np.ndarray, episodes: np.ndarray) -> tuple[float, float, float] | None:
        """(gain, its upper 95 % bound, mean score) over the window that ends with the last value; None: it is not full.

        Args:
            score: (n,) mean score of the episodes that ended in each update.
            episodes: (n,) episodes that had ended by then since the run began.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # huge values: see the last line of `_fitted`
            return self._fitted(score, episodes)

    def _fitted(self, score: np.ndarray, episodes: np.ndarray) -> tuple[float, float, float] | None:
        weight = np.diff(episodes, prepend=episodes[0] - 1)
        inside = episodes > episodes[-1] - self.window_episodes
        if episodes[-1] - episodes[0] < _FULL * self.window_episodes - 1 or inside.sum() < 10:
            return None
        x, y, w = episodes[inside].astype(float), score[inside], np.maximum(weight[inside], 1.0)
        x = x - np.average(x, weights=w)
        mean = float(np.average(y, weights=w))
        spread = float((w * x * x).sum())
        if spread == 0 or not math.isfinite(spread):
            return None
        slope = float((w * x * (y - mean)).sum()) / spread
        residual = float((w * (y - mean - slope * x) ** 2).sum()) / (len(y) - 2)
        error = float(np.sqrt(residual / spread))
        length = self.window_episodes
        found = slope * length, (slope + 1.645 * error) * length, mean
        return found if np.isfinite(found).all() else None

    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first.

        The onset is the first step of the window. A plateau breaks no weights, so every checkpoint up to the detection
        is good to start from.
        """
        steps, values = history.aligned(self.metrics)
        finite = np.isfinite(values[self.metric]) & np.isfinite(values["episodes"])
        steps, values = steps[finite], {name: column[finite] for name, column in values.items()}
        found: list[Evidence] = []
        in_a_row: list[tuple[int, float]] = []
        # A check falls due at the first update that passes another `check_every` episodes.
        due = np.flatnonzero(np.diff(values["episodes"] // self.check_every, prepend=0) > 0) + 1
        for end in due:
            judged = self.phases is None or values["phase"][end - 1] in self.phases
            measured = self.gain(values[self.metric][:end], values["episodes"][:end]) if judged else None
            # For a score that is always 0 both sides are 0, and it fires: that score does not rise either.
            if measured is None or measured[1] > self.relative_gain * abs(measured[2]):
                in_a_row = []
                continue
            in_a_row.append((int(end) - 1, measured[1]))
            if len(in_a_row) == self.patience:
                begun = values["episodes"][in_a_row[0][0]] - self.window_episodes
                inside = np.flatnonzero(values["episodes"][:end] > begun)  # the count of another program may fall
                onset = int(steps[inside[0] if len(inside) else end - 1])
                found.append(
                    Evidence(
                        rule=self.name,
                        metric=self.metric,
                        values=tuple(bound for _, bound in in_a_row),
                        threshold=f"upper 95 % bound of the gain over {self.window_episodes} episodes below "
                        f"{self.relative_gain:.0%} of the mean {measured[2]:.3g}",
                        onset_step=onset,
                        last_good_step=int(steps[end - 1]),
                        detection_step=int(steps[end - 1]),
                        detail={"gain": measured[0], "mean": measured[2]},
                    )
                )
        return found

    def explain(self, history: History) -> str:
        return "never certain that the gain is small"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """The score with its fitted trend."""
        mean, gain = evidence.detail.get("mean"), evidence.detail.get("gain")
        trend = None
        if mean is not None and gain is not None and evidence.detection_step is not None:
            trend = (evidence.onset_step or 0, mean - gain / 2), (evidence.detection_step, mean + gain / 2)
        return (Curves(self.metric, *history.series(self.metric), trend=trend, noisy=True),)
