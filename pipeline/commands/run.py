"""`ladder run`: one experiment down its ladder, or several seeds of it, one after another."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.callbacks.callback import Callback
from pipeline.callbacks.display import Display
from pipeline.callbacks.notify import Notifier
from pipeline.callbacks.page import PageWriter
from pipeline.callbacks.terminal import Terminal
from pipeline.commands.environment import EXIT_OF_OUTCOME, make_console, private_files
from pipeline.compare.command import compare
from pipeline.config import ExperimentConfig
from pipeline.errors import EXIT_HEALTHY, EXIT_INFRASTRUCTURE, InfrastructureFailure
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.recovery import reconcile
from pipeline.experiment.series import Series
from pipeline.launchers.base import Launcher
from pipeline.processes.streams import complain
from pipeline.tracking.patience import leave
from pipeline.tracking.store import Store, open_to_write


def run(configs: Sequence[ExperimentConfig], launcher: Launcher) -> int:
    """Runs experiments (seeds of one) down their ladders, one after another; the exit code is that of the worst.

    Each has its own budget, so that what becomes of a seed does not depend on those before it. Only a person ends all.
    """
    private_files()
    store = open_to_write(configs[0], Terminal().say)
    reconcile(store, Terminal().say)
    series = Series.of([config.training.seed for config in configs])
    return leave(one_after_another(configs, series, store, launcher))


def callbacks_for(config: ExperimentConfig, store: Store) -> tuple[Callback, ...]:
    """Who is told of an experiment, in this order. A new callback is added here."""
    terminal = Terminal()
    return (
        Display(terminal),
        PageWriter(store, terminal.complain),
        Notifier(config.notify.command, terminal.complain),
    )


def one_after_another(
    configs: Sequence[ExperimentConfig], series: Series, store: Store, launcher: Launcher, worst: int = EXIT_HEALTHY
) -> int:
    """The exit code of the worst; `worst`: that of those before."""
    for config in configs:
        orchestrator = Orchestrator(config, store, launcher, callbacks_for(config, store), series=series)
        cannot_start = False
        try:
            outcome = orchestrator.run().outcome
            worst, cannot_start = max(worst, EXIT_OF_OUTCOME[outcome]), outcome == "error"
        except InfrastructureFailure as error:
            if config is configs[-1]:
                raise
            complain(f"seed {config.training.seed}: {error}")
            worst = max(worst, EXIT_INFRASTRUCTURE)
        if orchestrator.asked_to_stop or cannot_start:
            if rest := series.to_come(store):
                print(f"not begun: seed {', '.join(map(str, rest))}; `ladder resume` goes on with that too")
            break
    if len(parents := series.parents(store)) > 1:
        compare(store, [run.run_id for run in parents], None, make_console())
    return worst
