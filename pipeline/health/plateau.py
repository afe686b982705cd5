"""Plateau rules: a score has certainly stopped rising, or a loss falling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.health.history import History
from pipeline.health.names import should_fall
from pipeline.health.of_each import OfEach
from pipeline.health.rule import Curves
from pipeline.health.verdict import Evidence, RuleVerdict

_FULL = 0.99
"""A window counts as full from this share of its episodes: the history does not say how many ended before the first
update that reports any."""


class PlateauRule(OfEach):
    """The gain over the last `window_episodes` is certainly small: an equivalence test, not a missing trend.

    Where a run does not log `episodes`, each report of the metric counts as one.

    A straight line is fitted to the scores in the window; an update weighs as many episodes as ended in it. The rule
    fires when the upper one-sided 95 % bound of the fitted gain lies below `relative_gain` × the mean score. A trend
    that cannot be *seen* proves nothing: 57 % of the checks of runs that do improve see none.
    """

    name: str = "reward_plateau"
    verdict: RuleVerdict = "reward_plateau"
    metric: str | None = "score"
    direction: Literal["max", "min"] | None = None
    """What is better; default: by the name (a loss or an error should fall)."""
    window_episodes: int = Field(default=1000, ge=2)
    relative_gain: float = 0.10
    check_every: int | None = Field(default=None, ge=1)
    """Episodes between two checks; each check is a chance of a false alarm. Default: half the window."""
    patience: int = Field(default=2, ge=1)
    """Checks in a row."""
    whole: bool = False
    """Judge only a training that has ended, from its start to its end, if it has as many reports as the window."""

    @model_validator(mode="before")
    @classmethod
    def _words_instead(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("words") and "metric" not in given:
            return {**given, "metric": None}
        return given

    @property
    def between_checks(self) -> int:
        """Episodes between two checks."""
        return self.check_every or self.window_episodes // 2

    @property
    def least_episodes(self) -> int:
        """The first check finds a full window, and `patience` − 1 more checks follow it."""
        each = self.between_checks
        return (math.ceil(_FULL * self.window_episodes / each) + self.patience - 1) * each

    def condition(self) -> str:
        if self.whole:
            bound = f"{self.relative_gain:.0%} of its mean"
            return f"upper 95 % bound of the gain in {self.shown} over the whole run < {bound}"
        return (
            f"upper 95 % bound of the gain in {self.shown} over {self.window_episodes} episodes "
            f"< {self.relative_gain:.0%} of its mean"
        )

    def persistence(self) -> str:
        if self.whole:
            return f"from the start to the end, {self.window_episodes} reports and more"
        return f"{self.patience} checks in a row, one every {self.between_checks} episodes"

    @property
    def patient(self) -> bool:
        return True

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*super().reads(names), "episodes")

    def find_at_exit(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        known = np.isfinite(values)
        steps, values = steps[known], self._rises(metric) * values[known]
        if not self.whole or len(values) < self.window_episodes:
            return []
        rule = self.model_copy(update={"window_episodes": len(values)})
        measured = rule.gain(values, np.arange(1.0, len(values) + 1))
        if measured is None or measured[1] > self.relative_gain * abs(measured[2]):
            return []
        mean = self._rises(metric) * measured[2]
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=(measured[1],),
                threshold=f"upper 95 % bound of the gain from the start to the end below {self.relative_gain:.0%} of "
                f"the mean {mean:.3g}",
                onset_step=int(steps[0]),
                last_good_step=int(steps[-1]),
                detection_step=int(steps[-1]),
                detail={"gain": self._rises(metric) * measured[0], "mean": mean},
            )
        ]

    def _rises(self, metric: str) -> float:
        """The sign that makes better values of a metric larger."""
        return -1.0 if (self.direction or ("min" if should_fall(metric) else "max")) == "min" else 1.0

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether a check has fallen due since the last look, as far as the episodes tell."""
        if not super().stirs(latest, before):
            return False
        since, now = before.get("episodes", 0.0), latest.get("episodes", math.nan)
        if not math.isfinite(now) or not math.isfinite(since):
            return True
        return now // self.between_checks > since // self.between_checks

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
        names = () if self.whole else self.meant(history)
        found = [each for metric in names for each in self._of(metric, history)]
        return sorted(found, key=lambda evidence: evidence.detection_step or 0)

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        return self._of(metric, History({metric: zip(steps.tolist(), values.tolist(), strict=True)}))

    def _columns(self, metric: str, history: History) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, str]:
        """Steps, finite values, episodes that had ended by then, whether it is judged: (n,) each; and what is counted.

        The rule looks at the whole history, also at phases that it does not judge.
        """
        steps, columns = history.aligned((metric, *(() if self.phases is None else ("phase",))))
        values, counted, known = columns[metric], "episodes", np.isfinite(columns[metric])
        judged = np.ones(len(steps), bool) if self.phases is None else np.isin(columns["phase"], self.phases)
        at, numbers = history.series("episodes")
        at, numbers = at[np.isfinite(numbers)], numbers[np.isfinite(numbers)]
        if len(at):
            newest = np.searchsorted(at, steps, side="right") - 1
            episodes, known = np.maximum.accumulate(numbers[np.maximum(newest, 0)]), known & (newest >= 0)
        else:
            episodes, counted = np.cumsum(known).astype(float), "reports"
        return steps[known], values[known], episodes[known], judged[known], counted

    def _of(self, metric: str, history: History) -> list[Evidence]:
        steps, values, episodes, judged, counted = self._columns(metric, history)
        rises = self._rises(metric)
        found: list[Evidence] = []
        in_a_row: list[tuple[int, float]] = []
        # A check falls due at the first update that passes another `check_every` episodes.
        due = np.flatnonzero(np.diff(episodes // self.between_checks, prepend=0) > 0) + 1
        for end in due:
            # What lies before the window has no say in it.
            begin = max(0, int(np.searchsorted(episodes[:end], episodes[end - 1] - self.window_episodes)) - 1)
            measured = self.gain(rises * values[begin:end], episodes[begin:end]) if judged[end - 1] else None
            # For a score that is always 0 both sides are 0, and it fires: that score does not rise either.
            if measured is None or measured[1] > self.relative_gain * abs(measured[2]):
                in_a_row = []
                continue
            in_a_row.append((int(end) - 1, measured[1]))
            if len(in_a_row) == self.patience:
                begun = episodes[in_a_row[0][0]] - self.window_episodes
                onset = int(steps[int(np.searchsorted(episodes, begun, side="right"))])
                mean = rises * measured[2]
                found.append(
                    Evidence(
                        rule=self.name,
                        metric=metric,
                        values=tuple(bound for _, bound in in_a_row),
                        threshold=f"upper 95 % bound of the gain over {self.window_episodes} {counted} below "
                        f"{self.relative_gain:.0%} of the mean {mean:.3g}",
                        onset_step=onset,
                        last_good_step=int(steps[end - 1]),
                        detection_step=int(steps[end - 1]),
                        detail={"gain": rises * measured[0], "mean": mean},
                    )
                )
        return found

    def explain(self, history: History) -> str:
        reports = [len(self._columns(metric, history)[0]) for metric in self.meant(history)]
        if reports and max(reports) < 10:
            return f"{max(reports)} reports are too few to tell"
        return "never certain that the gain is small"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """The score with its fitted trend."""
        mean, gain = evidence.detail.get("mean"), evidence.detail.get("gain")
        trend = None
        if mean is not None and gain is not None and evidence.detection_step is not None:
            trend = (evidence.onset_step or 0, mean - gain / 2), (evidence.detection_step, mean + gain / 2)
        assert evidence.metric is not None
        return (Curves(evidence.metric, *history.series(evidence.metric), trend=trend, noisy=True),)
