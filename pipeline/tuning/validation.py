"""Whether the gain of the best trial is real: it and the default once more, on seeds that the study has never seen.

The best of many trials is partly the luckiest, so its own value says too much. A validation is a study of its own in
the same storage, in which every trial is queued: (configuration, seed). So it has all that a study has: workers,
recovery, runs in MLflow; and it can be continued, also with more seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import feasible, superseded

CONFIGURATION, SEED = "configuration", "seed"
TUNED, DEFAULT = "tuned", "default"
FRESH = 10_000
"""Validation begins so many seeds after those of the study."""


def distributions(plan: StudyPlan) -> dict[str, BaseDistribution]:
    first = fresh_seeds(plan, 1)[0]
    return {
        CONFIGURATION: CategoricalDistribution((DEFAULT, TUNED)),
        SEED: IntDistribution(first, first + FRESH),
    }


def fresh_seeds(plan: StudyPlan, count: int) -> list[int]:
    first = plan.config.training.seed + FRESH
    return list(range(first, first + count))


def study_name(plan: StudyPlan, best: FrozenTrial) -> str:
    return f"{plan.name} – validation of trial {best.number}"


def enqueue(study: optuna.Study, plan: StudyPlan, count: int) -> None:
    """What is missing of both configurations on `count` seeds; in one's turn."""
    for seed in fresh_seeds(plan, count):
        for configuration in (TUNED, DEFAULT):  # side by side: a validation that is cut off has as many of both
            study.enqueue_trial({CONFIGURATION: configuration, SEED: seed}, skip_if_exists=True)


def results(trials: Sequence[FrozenTrial], direction: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Configuration → objective on each of the seeds that is done, higher is better; −inf where the training failed."""
    sign = 1.0 if direction == "maximize" else -1.0
    found: dict[str, list[float]] = {TUNED: [], DEFAULT: []}
    again = superseded(list(trials))
    for trial in trials:
        over = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.number not in again
        if over and trial.params[SEED] in seeds:
            good = trial.state == TrialState.COMPLETE and feasible(trial) and trial.value is not None
            found[trial.params[CONFIGURATION]].append(
                sign * trial.value if good and trial.value is not None else -np.inf
            )
    return found


# Is the difference real? Statistics over runs, as pure functions.

_RESAMPLES = 5000


@dataclass(frozen=True)
class Gain:
    """The best against the default, a run the unit."""

    tuned: tuple[float, ...]
    default: tuple[float, ...]
    """The objective of each run, higher is better; −inf where the training failed."""
    probability: float
    """That a run of the best is better than one of the default; a tie counts half."""
    low: float
    high: float
    """Its 95 % percentile bootstrap interval over runs (rliable; Agarwal et al. 2021, arXiv:2108.13264)."""
    p_value: float
    """Of the exact one-sided Mann-Whitney test. The bootstrap of a few runs that do not overlap has no width at all."""

    @property
    def is_real(self) -> bool:
        return self.low > 0.5 and self.p_value < 0.05

    @property
    def sentence(self) -> str:
        said = "the gain is real" if self.is_real else "a gain is not shown"
        failed = [
            f"; {name} failed {sum(np.isneginf(runs))} of {len(runs)}"
            for name, runs in (("the best", self.tuned), ("the default", self.default))
            if any(np.isneginf(runs))
        ]
        return (
            f"{said}: the best is better than the default with probability {self.probability:.2f} "
            f"[{self.low:.2f}, {self.high:.2f}], p = {self.p_value:.3f}, "
            f"{len(self.tuned)} and {len(self.default)} fresh seeds{''.join(failed)}"
        )

    def described(self, sign: float) -> dict[str, Any]:
        """For JSON: each run's objective times `sign`, None where the training failed."""

        def own(runs: tuple[float, ...]) -> list[float | None]:
            return [None if np.isneginf(value) else sign * value for value in runs]

        return {
            "tuned": own(self.tuned),
            "default": own(self.default),
            "probability_of_improvement": [self.probability, self.low, self.high],
            "p_value": self.p_value,
            "real": self.is_real,
        }


def compare(tuned: Sequence[float], default: Sequence[float], seed: int = 0) -> Gain:
    """Of one objective per run, higher is better; −inf for a run whose training failed. Both (n,), n ≥ 2."""
    x, y = np.asarray(tuned, dtype=float), np.asarray(default, dtype=float)
    # (n, m): 1 where the tuned run wins, ½ at a tie. Resampling runs is resampling rows and columns.
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(x), size=(_RESAMPLES, len(x)))
    columns = rng.integers(len(y), size=(_RESAMPLES, len(y)))
    drawn = wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(drawn, [0.025, 0.975])
    ranks = stats.rankdata(np.concatenate([x, y]))  # the test is of ranks; infinities have one too
    exact = stats.permutation_test(
        (ranks[: len(x)], ranks[len(x) :]),
        lambda a, b, axis: np.sum(a, axis=axis),
        alternative="greater",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(seed),
    )
    return Gain(tuple(x), tuple(y), float(wins.mean()), float(low), float(high), float(exact.pvalue))
