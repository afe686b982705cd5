"""When a trial is pruned."""

from __future__ import annotations

import optuna
import pytest
from optuna.pruners import MedianPruner, NopPruner

from pipeline.tuning.pruning import PRUNERS, SinceWarmUp, make_pruner


@pytest.mark.parametrize(("values", "pruned"), [((9.0, 1.0, 1.0), True), ((0.0, 3.0, 3.0), False)])
def test_early_luck_does_not_save_a_trial(values: tuple[float, ...], pruned: bool) -> None:
    """Three trials of 2 have been trained to the end. The first value is of the warm-up."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("median", {"n_warmup_steps": 50}))
    for _ in range(5):
        trial = study.ask()
        for step in (5, 50, 100):
            trial.report(2.0, step)
        study.tell(trial, 2.0)
    trial = study.ask()
    for step, value in zip((5, 50, 100), values, strict=True):
        trial.report(value, step)
        assert trial.should_prune() is (pruned and step >= 50)


def test_pruners_are_optunas() -> None:
    assert type(make_pruner("median", {})) is MedianPruner and type(make_pruner("none", {})) is NopPruner
    assert isinstance(make_pruner("percentile", {"percentile": 25.0, "n_warmup_steps": 5}), SinceWarmUp)
    for name in set(PRUNERS) - {"percentile"}:
        make_pruner(name, {})
    with pytest.raises(TypeError):
        make_pruner("median", {"warmup": 5})
