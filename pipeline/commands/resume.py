"""`ladder resume`: goes on with an experiment that was cut off, and with the seeds that were to follow it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.callbacks.terminal import Terminal
from pipeline.commands.environment import EXIT_OF_OUTCOME, private_files
from pipeline.commands.run import callbacks_for, one_after_another
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import EXIT_HEALTHY, BadInput
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.past import Past, read_config
from pipeline.experiment.place import Place, commands
from pipeline.experiment.recovery import NothingToResume, reconcile, take_up
from pipeline.experiment.series import Series, cut_between_seeds
from pipeline.experiment_file import require_games, with_overrides
from pipeline.launchers.base import Launcher
from pipeline.launchers.gpu import require_device
from pipeline.secrets import lacks_password
from pipeline.tracking.access import has_store, tracking_root
from pipeline.tracking.patience import leave
from pipeline.tracking.runs import ExperimentRun
from pipeline.tracking.store import open_to_write


class Resumption:
    """One call of the command.

    Args:
        here: the configuration that its overrides make, with where the store is found.
        overrides: what they change in the experiment's own configuration: budgets, and where its store is.
    """

    def __init__(self, here: ExperimentConfig, overrides: Sequence[str], launcher: Launcher) -> None:
        self._here, self._overrides, self._launcher = here, overrides, launcher
        if not has_store(here):
            raise BadInput(f"tracking.root: nothing to resume, there are no experiments under {tracking_root(here)}")
        private_files()
        self._store = open_to_write(here, Terminal().say)

    def run(self, named: str | None) -> int:
        """Goes on with the experiment of this parent run, or with the newest unfinished one; the exit code."""
        store, launcher, say = self._store, self._launcher, Terminal().say
        if named is None and (parent := cut_between_seeds(store)) is not None:
            reconcile(store, say)
            with contextlib.chdir(self._folder(parent, say)):
                return leave(self._remaining_seeds(parent, EXIT_HEALTHY))
        try:
            past = take_up(store, named, self._adapted, say)
        except NothingToResume as nothing:
            if (newest := next(store.newest_parents(), None)) is None:
                raise
            say(f"{nothing}; the newest: {newest.outcome}")
            return EXIT_OF_OUTCOME[newest.outcome or ""]
        try:
            begun = store.run(past.parent)
            folder = self._folder(begun, say) if isinstance(begun, ExperimentRun) else Path.cwd()
        except BaseException:
            past.lock.release()
            raise
        with contextlib.chdir(folder):
            return self._go_on(past)

    def _go_on(self, past: Past) -> int:
        store, launcher, say = self._store, self._launcher, Terminal().say
        if past.seconds > 3600 * (hours := past.config.budget.hours):
            past.lock.release()
            raise BadInput(
                f"budget.hours: {hours:g} are spent; give it more: ladder resume {past.parent} budget.hours=…"
            )
        reconcile(store, say)
        if past.config.trainer.command is None:
            launcher.warm_up()
        orchestrator = Orchestrator(past.config, store, launcher, callbacks_for(past.config, store))
        outcome = orchestrator.run(past).outcome
        code = EXIT_OF_OUTCOME[outcome]
        own = None if orchestrator.asked_to_stop or outcome == "error" else store.run(past.parent)
        return leave(self._remaining_seeds(own, code) if isinstance(own, ExperimentRun) else code)

    def _folder(self, parent: ExperimentRun, say: Callable[[str], None]) -> Path:
        """The folder to work in: what an experiment's own commands say is meant relative to where it began."""
        place = Place.read(parent.began_in)
        if place is None or not commands(read_config(self._store, parent)):
            return Path.cwd()
        folder = place.find(self._store.root)
        if str(folder) != place.folder:
            say(f"it began in {place.folder}; it goes on in {folder}")
        return folder

    def _adapted(self, config: ExperimentConfig) -> ExperimentConfig:
        """The experiment's configuration as this call continues it."""
        tracking = self._here.tracking
        found = {"root": tracking.root, "uri": tracking.uri}  # where it was found, which may have moved
        data = config.model_copy(update={"tracking": config.tracking.model_copy(update=found)}).model_dump(mode="json")
        later = with_overrides(self._overrides, data)
        for key, value in flatten(later).items():
            if lacks_password(value) and key not in ("tracking.uri", "experiment.description"):
                remedy = f"give it again: {key}=…" if key.startswith("notify.") else "it can go on where it was begun"
                raise BadInput(f"{key}: its password is neither in the store nor under {later.tracking.root}; {remedy}")
        require_games(later, "resume")
        require_device([later], begun=True)
        return later

    def _remaining_seeds(self, parent: ExperimentRun, worst: int) -> int:
        """Goes on with the seeds that were to follow this experiment, if there are any."""
        series = Series.read(parent)
        if series is None:
            return worst
        data = self._adapted(read_config(self._store, parent)).model_dump(mode="json")
        configs = [with_overrides([f"training.seed={seed}"], data) for seed in series.to_come(self._store)]
        return one_after_another(configs, series, self._store, self._launcher, worst)


def resume(named: str | None, here: ExperimentConfig, overrides: Sequence[str], launcher: Launcher) -> int:
    """Goes on with the experiment of the parent run that is named, or with the newest unfinished one.

    Raises:
        BadInput: there is no such experiment, it has ended, or it is being run.
    """
    return Resumption(here, overrides, launcher).run(named)
