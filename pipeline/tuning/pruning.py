"""Optuna's pruners, as a study uses them."""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from optuna.trial import FrozenTrial

PRUNERS: dict[str, type[BasePruner]] = {
    "median": MedianPruner,
    "percentile": PercentilePruner,
    "successive_halving": SuccessiveHalvingPruner,
    "hyperband": HyperbandPruner,
    "none": NopPruner,
}


class SinceWarmUp(BasePruner):
    """A median or percentile pruner that judges a trial by its values since the pruner's warm-up.

    Optuna's own compares the best value that the trial ever had with the others' values at this step. The first values
    are of few games, and the best of them is high by chance, so it hardly prunes a noisy objective.
    """

    def __init__(self, pruner: BasePruner, warm_up: int) -> None:
        self._pruner, self._warm_up = pruner, warm_up

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        since = copy.copy(trial)
        values = trial.intermediate_values.items()
        since.intermediate_values = {step: value for step, value in values if step >= self._warm_up}
        return bool(self._pruner.prune(study, since))


def make_pruner(name: str, options: dict[str, Any]) -> BasePruner:
    """The pruner of this name.

    Raises:
        TypeError, ValueError: an option that it does not have or allow.
    """
    pruner = PRUNERS[name](**options)
    warm_up = options.get("n_warmup_steps", 0)
    return SinceWarmUp(pruner, warm_up) if isinstance(pruner, PercentilePruner) and warm_up else pruner
