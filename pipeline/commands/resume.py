"""`ladder resume`: goes on with an experiment that was cut off, and with the seeds that were to follow it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.callbacks.terminal import Terminal
from pipeline.commands.environment import EXIT_OF_OUTCOME, private_files
from pipeline.commands.turns import Turn, run_turns
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import EXIT_HEALTHY, BadInput
from pipeline.experiment.past import Past, is_unfinished, read_config
from pipeline.experiment.place import Place, commands
from pipeline.experiment.recovery import NothingToResume, is_run, reconcile, take_up
from pipeline.experiment.series import Series, cut_between_seeds
from pipeline.experiment_file import require_games, with_overrides
from pipeline.launchers.base import Launcher
from pipeline.launchers.choose import make_launcher
from pipeline.launchers.gpu import require_device
from pipeline.secrets import lacks_password
from pipeline.tracking.access import has_store, tracking_root
from pipeline.tracking.patience import leave
from pipeline.tracking.runs import ExperimentRun
from pipeline.tracking.store import Store, open_to_write


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
        """Goes on with the experiment of this parent run, or with the newest unfinished one; the exit code.

        What was cut off of the same series goes on too, and what was to follow.
        """
        store, say = self._store, Terminal().say
        if named is None and (parent := cut_between_seeds(store)) is not None:
            reconcile(store, say)
            with contextlib.chdir(self._folder(parent, say)):
                return leave(self._run([], parent))
        try:
            past = take_up(store, named, self._adapted, say)
        except NothingToResume as nothing:
            if (newest := next(store.newest_parents(), None)) is None:
                raise
            say(f"{nothing}; the newest: {newest.outcome}")
            return EXIT_OF_OUTCOME[newest.outcome or ""]
        try:
            _require_hours(past)
            begun = store.run(past.parent)
            folder = self._folder(begun, say) if isinstance(begun, ExperimentRun) else Path.cwd()
            reconcile(store, say)
        except BaseException:
            past.lock.release()
            raise
        with contextlib.chdir(folder):
            if past.config.trainer.command is None and past.config.launcher.parallel == 1:
                self._launcher.warm_up()
            first = Turn(past.config, lambda _: past)
            return leave(self._run([first], begun if isinstance(begun, ExperimentRun) else None))

    def _run(self, turns: list[Turn], member: ExperimentRun | None) -> int:
        """Runs these, and what is left of the series of an experiment.

        A launcher other than that of this machine is known only now.
        """
        series = None if member is None else Series.read(member)
        if series is not None and member is not None:
            turns += self._siblings(member, series)
            data = self._adapted(read_config(self._store, member)).model_dump(mode="json")
            turns += [Turn(with_overrides([f"training.seed={seed}"], data)) for seed in series.to_come(self._store)]
        if not turns:
            return EXIT_HEALTHY
        if turns[0].config.launcher.kind == "local":
            return run_turns(turns, series, self._store, self._launcher)
        with contextlib.closing(make_launcher(turns[0].config)) as launcher:
            return run_turns(turns, series, self._store, launcher)

    def _siblings(self, member: ExperimentRun, series: Series) -> list[Turn]:
        """The other experiments of a series that were cut off, and that no process runs."""
        found = []
        for run in series.parents(self._store):
            if run.run_id == member.run_id or not is_unfinished(run):
                continue
            if is_run(self._store, run):
                continue

            def again(store: Store, run_id: str = run.run_id) -> Past:
                past = take_up(store, run_id, self._adapted)
                try:
                    _require_hours(past)
                except BadInput:
                    past.lock.release()
                    raise
                return past

            found.append(Turn(self._adapted(read_config(self._store, run)), again))
        return found

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


def _require_hours(past: Past) -> None:
    """Raises BadInput: the experiment has spent its hours."""
    if past.seconds > 3600 * (hours := past.config.budget.hours):
        raise BadInput(f"budget.hours: {hours:g} are spent; give it more: ladder resume {past.parent} budget.hours=…")


def resume(named: str | None, here: ExperimentConfig, overrides: Sequence[str], launcher: Launcher) -> int:
    """Goes on with the experiment of the parent run that is named, or with the newest unfinished one.

    Raises:
        BadInput: there is no such experiment, it has ended, or it is being run.
    """
    return Resumption(here, overrides, launcher).run(named)
