"""`ladder run`: one experiment down its ladder, or several seeds of it, one after another or some at a time."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.callbacks.terminal import Terminal
from pipeline.commands.environment import private_files
from pipeline.commands.turns import Turn, run_turns
from pipeline.config import ExperimentConfig
from pipeline.experiment.recovery import reconcile
from pipeline.experiment.series import Series
from pipeline.launchers.base import Launcher
from pipeline.tracking.patience import leave
from pipeline.tracking.store import open_to_write


def run(configs: Sequence[ExperimentConfig], launcher: Launcher) -> int:
    """Runs experiments (seeds of one) down their ladders, `launcher.parallel` at a time; the code is that of the worst.

    Each has its own budget, so that what becomes of a seed does not depend on the others. Only a person ends all.
    """
    private_files()
    store = open_to_write(configs[0], Terminal().say)
    reconcile(store, Terminal().say)
    series = Series.of([config.training.seed for config in configs])
    return leave(run_turns([Turn(config) for config in configs], series, store, launcher))
