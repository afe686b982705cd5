"""Whether the gain of the best trial is real: the best and the default run again, on seeds that the study has not used.

The best of many trials is partly the luckiest, so its own value is biased upwards. A validation is a study of its own
in the same storage. Each of its trials is queued as (configuration, seed). So it has all that a study has (workers,
recovery, runs in MLflow), and it can be continued, also with more seeds. :func:`compare` then asks whether the
difference between the two configurations is larger than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import feasible, superseded

CONFIGURATION, SEED = "configuration", "seed"
"""Parameters of a validation's trial."""
TUNED, DEFAULT = "tuned", "default"
"""Values of the parameter `configuration`."""
FRESH = 10_000
"""Distance between the study's first seed and the validation's."""
CONFIDENCE = 0.95
_DRAWS = 20_000
_PERMUTATIONS = 20_000
_FARTHEST = 12.0
"""Distance, in deviations, at which two normal distributions hardly ever overlap."""


def study_name(plan: StudyPlan, best: FrozenTrial) -> str:
    """Name of the validation in Optuna's storage."""
    return f"{plan.name} – validation of trial {best.number}"


def fresh_seeds(plan: StudyPlan, count: int) -> list[int]:
    """The first `count` seeds of the validation."""
    first = plan.config.training.seed + FRESH
    return list(range(first, first + count))


def distributions(plan: StudyPlan) -> dict[str, BaseDistribution]:
    """The search space of the validation: its trials are queued, so nothing is sampled from it."""
    first = fresh_seeds(plan, 1)[0]
    return {
        CONFIGURATION: CategoricalDistribution((DEFAULT, TUNED)),
        SEED: IntDistribution(first, first + FRESH),
    }


def enqueue(study: optuna.Study, plan: StudyPlan, count: int) -> None:
    """Queues both configurations on `count` seeds, except what is queued already.

    The caller holds the storage's lock (`storage.turn`).
    """
    for seed in fresh_seeds(plan, count):
        for configuration in (TUNED, DEFAULT):  # alternating, so that a validation that is cut off has as many of both
            study.enqueue_trial({CONFIGURATION: configuration, SEED: seed}, skip_if_exists=True)


def results(trials: Sequence[FrozenTrial], direction: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Configuration → objective on each of `seeds` that is done; higher is better, −inf where the training failed."""
    sign = 1.0 if direction == "maximize" else -1.0
    found: dict[str, list[float]] = {TUNED: [], DEFAULT: []}
    again = superseded(list(trials))
    for trial in trials:
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.number not in again
        if ended and trial.params[SEED] in seeds:
            healthy = trial.state == TrialState.COMPLETE and feasible(trial)
            value = trial.value if healthy else None
            found[trial.params[CONFIGURATION]].append(-np.inf if value is None else sign * value)
    return found


@dataclass(frozen=True)
class Gain:
    """The best configuration compared with the default; the unit is the run."""

    tuned: tuple[float, ...]
    default: tuple[float, ...]
    """The objective of each run, higher is better; −inf where the training failed."""
    probability: float
    """Probability that a run of the best is better than a run of the default; a tie counts half."""
    low: float
    high: float
    """95 % interval of the probability, over runs: the values that an exact rank test does not reject
    (:func:`limits`). It has a width also where the runs do not overlap."""
    p_value: float
    """p-value of the exact two-sided Mann-Whitney test."""

    @property
    def is_real(self) -> bool:
        """Whether the interval lies above ½, as it does exactly if the test is significant at 5 %."""
        return self.low > 0.5

    @property
    def sentence(self) -> str:
        """The result in words, for the terminal and the run's tag."""
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
        """Content of `validation.json`: each run's objective times `sign`, None where the training failed."""

        def own(runs: tuple[float, ...]) -> list[float | None]:
            return [None if np.isneginf(value) else sign * value for value in runs]

        return {
            "tuned": own(self.tuned),
            "default": own(self.default),
            "probability_of_improvement": [self.probability, self.low, self.high],
            "p_value": self.p_value,
            "real": self.is_real,
        }


def compare(tuned: Sequence[float], default: Sequence[float]) -> Gain:
    """Returns the gain of one sample of runs over another. The samples are not paired: equal seeds share no luck.

    Args:
        tuned, default: (n,) and (m,), both at least 2; the objective of each run, higher is better, −inf for a run
            whose training failed.
    """
    x, y = np.asarray(tuned, dtype=float), np.asarray(default, dtype=float)
    # Ranks, because an infinity has a rank but no sum.
    ranks = stats.rankdata(np.concatenate([x, y]))
    own, others = ranks[: len(x)], ranks[len(x) :]
    probability = float((own.sum() - len(x) * (len(x) + 1) / 2) / (len(x) * len(y)))
    p_value = _p_value(own, others)
    low, high = limits(tuple(np.sort(ranks)), len(x), float(own.sum()))
    # The interval is drawn. At ½ it has to agree with the test, which is exact.
    if p_value > 1 - CONFIDENCE:
        low, high = min(low, 0.5), max(high, 0.5)
    elif probability > 0.5:
        low = max(low, float(np.nextafter(0.5, 1)))
    else:
        high = min(high, float(np.nextafter(0.5, 0)))
    return Gain(tuple(x), tuple(y), probability, low, high, p_value)


def _p_value(own: np.ndarray, others: np.ndarray) -> float:
    """p-value of the exact two-sided Mann-Whitney test, from ranks (n,) and (m,)."""
    if len({*own.tolist(), *others.tolist()}) == len(own) + len(others):
        return float(stats.mannwhitneyu(own, others, method="exact").pvalue)
    exact = stats.permutation_test(  # with ties
        (own, others),
        lambda a, b, axis: np.sum(a, axis=axis),
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return min(1.0, float(exact.pvalue))


@lru_cache(maxsize=4096)
def limits(ranks: tuple[float, ...], count: int, rank_sum: float) -> tuple[float, float]:
    """95 % interval of the probability that a run of the first sample is the better one, from the sum of its ranks.

    It has each probability at which so high a sum, and so low a one, comes in more than 2.5 % of cases. At ½ that is
    the exact rank test. At others it needs a law: the objectives are a shift of normal ones, on any scale.

    Args:
        ranks: (n + m,), the ranks of both samples, ascending; equal ones where runs are equal.
        count: n, the runs of the first sample.
        rank_sum: sum of their ranks.
    """
    drawn = np.random.default_rng(0).standard_normal((_DRAWS, len(ranks)))
    scores = np.asarray(ranks)

    def share(shift: float, sign: int) -> float:
        """How often the sum is as high as this one (sign 1), or as low (−1), at a shift of the first sample."""
        moved = drawn.copy()
        moved[:, :count] += shift
        places = moved.argsort(axis=1).argsort(axis=1)[:, :count]
        return float(np.mean(sign * (scores[places].sum(axis=1) - rank_sum) >= -1e-9))

    def border(sign: int) -> float:
        """The shift at which that share is 2.5 %; the share falls with it away from the sum."""
        near, far = sign * _FARTHEST, -sign * _FARTHEST
        for _ in range(14):
            middle = (near + far) / 2
            if share(middle, sign) > (1 - CONFIDENCE) / 2:
                near = middle
            else:
                far = middle
        return (near + far) / 2

    low, high = (float(stats.norm.cdf(border(sign) / np.sqrt(2))) for sign in (1, -1))
    return (low if share(-_FARTHEST, 1) <= (1 - CONFIDENCE) / 2 else 0.0), (
        high if share(_FARTHEST, -1) <= (1 - CONFIDENCE) / 2 else 1.0
    )
