"""Whether the gain of the best trial is real: the best and the default run again, on seeds that the study has not used.

The best of many trials is partly the luckiest, so its own value is biased upwards. A validation is a study of its own
in the same storage. Each of its trials is queued as (configuration, seed). So it has all that a study has (workers,
recovery, runs in MLflow), and it can be continued, also with more seeds. :func:`compare` then asks whether the
difference between the two configurations is larger than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.compare.ranks import rank_test
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import feasible, superseded

CONFIGURATION, SEED = "configuration", "seed"
"""Parameters of a validation's trial."""
TUNED, DEFAULT = "tuned", "default"
"""Values of the parameter `configuration`."""
FRESH = 10_000
"""Distance between the study's first seed and the validation's."""


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
    (:mod:`pipeline.compare.ranks`). It has a width also where the runs do not overlap."""
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
    return Gain(tuple(x), tuple(y), *rank_test(x, y))
