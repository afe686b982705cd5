"""Whether the gain of the best trial is real: it and the default once more, on seeds that the study has never seen.

The best of many trials is partly the luckiest, so its own value says too much. A validation is a study of its own in
the same storage, in which every trial is queued: (configuration, seed). So it has all that a study has: workers,
recovery, runs in MLflow; and it can be continued, also with more seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

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
