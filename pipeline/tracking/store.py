"""The MLflow store of one tracking root: all that is said to MLflow about runs (models: `training.logged_model`)."""

from __future__ import annotations

import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mlflow.entities import RunStatus

from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, StoreRestarts
from pipeline.tracking import tags
from pipeline.tracking.access import has_store, snapshot, tracking_root, tracking_uri
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.reader import Reader
from pipeline.tracking.serialise import status_of
from pipeline.tracking.writer import Writer

_RESTART_SECONDS, _EVERY_SECONDS = 120.0, 2.0
_SAID_AT_THE_END = {tags.VERDICT, tags.EVIDENCE, tags.OUTCOME, tags.NOTE, tags.NOT_STORED}


class Store(Reader, Writer):
    """The MLflow store of one tracking root, to ask and to write.

    With `patience`, it is asked until it answers; without, once.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """

    def reopen(self, run_id: str, config: ExperimentConfig, said: Mapping[str, str]) -> None:
        """Sets a run RUNNING again, with these tags, and without what was said at its end."""

        def again() -> None:
            self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            for tag in self.client.get_run(run_id).data.tags.keys() & _SAID_AT_THE_END:
                self.client.delete_tag(run_id, tag)

        self._ask(again)
        self.set_tags(run_id, said)
        if self.read_text(run_id, CONFIGURATION) is None:  # it was cut off before it was described, or could not be had
            self.describe(run_id, config)

    def end_children(self, run_id: str, verdict: str) -> list[str]:
        """Ends the runs that a trainer has nested in its own and left RUNNING. Returns their names."""
        left = [run for run in self.children(run_id) if run.is_running]
        for run in left:
            self._ask(partial(self.client.set_terminated, run.run_id, status_of(verdict)))
        return [run.name for run in left]


def open_store(config: ExperimentConfig) -> Store:
    """The store of a configuration, for reading. Raises BadInput where it would be a new one, which is not made.

    A store that this user may only read is read from a copy, as it is now.
    """
    root = tracking_root(config)
    if not has_store(config):
        raise BadInput(f"no experiments yet under {root}")
    folder = tempfile.TemporaryDirectory(prefix="ladder-")
    uri = tracking_uri(config)
    if (copied := snapshot(uri, Path(folder.name))) == uri:
        folder.cleanup()
        return Store(uri, root)
    store = Store(copied, root)
    weakref.finalize(store, folder.cleanup)
    return store


def open_to_write(config: ExperimentConfig, tell: Callable[[str], None]) -> Store:
    """The store of a configuration, for an experiment that begins or goes on.

    One whose web server says that it restarts is waited for, at most `budget.store_away_seconds` and two minutes.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """
    uri, root, began = tracking_uri(config), tracking_root(config), time.monotonic()
    longest = min(_RESTART_SECONDS, config.budget.store_away_seconds)
    told = False
    while True:
        try:
            return Store(uri, root)
        except StoreRestarts as error:
            if time.monotonic() - began > longest:
                raise
            if not told:
                tell(f"{error}; waiting for it, at most {longest:g} s")
                told = True
        time.sleep(_EVERY_SECONDS)
