"""The connection to an MLflow store, which is asked until it answers."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from pipeline.attempt.folder import matplotlib_cache, mlflow_artifacts
from pipeline.errors import InfrastructureFailure
from pipeline.foreign.names import Names
from pipeline.secrets import learn
from pipeline.tracking.access import create_database, make_none_in_its_place, reachable, try_connection
from pipeline.tracking.address import sqlite_file
from pipeline.tracking.answers import past_proxy
from pipeline.tracking.artifact_store import ArtifactStore
from pipeline.tracking.environment import prepare_mlflow
from pipeline.tracking.moved import follow, is_own
from pipeline.tracking.patience import Patience
from pipeline.tracking.presence import Presence
from pipeline.tracking.runs import LadderRun, typed

Answer = TypeVar("Answer")
_AT_ONCE = 500
"""Runs or experiments of one page."""
_DELETED = re.compile(r"The run (\w+) must be in the 'active' state\. Current state is deleted")
"""MLflow's answer where something is said to a run that has been deleted."""
_log = logging.getLogger("ladder")


class Connection:
    """A store that is open. With `patience`, it is asked until it answers; without, once.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        learn(uri)
        prepare_mlflow()
        # Matplotlib would write its cache of fonts to the home folder, in this process and in those that it starts.
        if os.access(root, os.W_OK) or not root.exists():
            os.environ.setdefault("MPLCONFIGDIR", str(matplotlib_cache(root)))
        self.patience: Patience | None = None
        self._artifacts: str | None = None
        self._known_names: dict[str, Names] = {}
        self._artifact_store = ArtifactStore(uri)
        if passed_over := past_proxy(uri):
            _log.warning("%s", passed_over)
        stands_on = [root]
        with reachable(uri):
            if (file := sqlite_file(uri)) is not None:
                self._artifacts = mlflow_artifacts(root).as_uri()
                create_database(file, self._artifacts)
                make_none_in_its_place(file)
                follow(file, root)
                stands_on += [file]
            try_connection(uri)
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)
        self._presence = Presence(stands_on)
        self._presence.check()
        self._artifact_presence = Presence([mlflow_artifacts(root)] if self._artifacts else [])
        self._artifact_presence.check()

    @property
    def is_own(self) -> bool:
        """Whether it is the SQLite file under the root, and so of nothing else."""
        file = sqlite_file(self.uri)
        return file is not None and is_own(file, self.root)

    def _ask(self, call: Callable[[], Answer], *, once: bool = False) -> Answer:
        """Makes a call, which changes nothing if it is made twice.

        Raises:
            StoreAway: `once` was asked for, and it does not answer now.
            InfrastructureFailure: it refuses, or is away for good.
        """

        def asked() -> Answer:
            self._presence.check()
            with reachable(self.uri):
                try:
                    return call()
                except MlflowException as error:
                    if (deleted := _DELETED.search(str(error))) is None:
                        raise
                    # It is at work, and its verdict must be told: a person has deleted it meanwhile.
                    self.client.restore_run(deleted[1])
                    return call()

        if self.patience is None:
            return asked()
        return self.patience.once(asked) if once else self.patience.insist(asked)

    def _all_experiments(self, *, once: bool = False) -> list[Experiment]:
        """MLflow's experiments, without the deleted ones."""
        found: list[Experiment] = []
        token: str | None = None
        while True:
            ask = partial(self.client.search_experiments, max_results=_AT_ONCE, page_token=token)
            page = self._ask(ask, once=once)
            found += page
            if not (token := page.token):
                return found

    def _experiments(self, *, once: bool = False) -> list[str]:
        """Ids of MLflow's experiments."""
        return [each.experiment_id for each in self._all_experiments(once=once)]

    def _pages(
        self, experiments: list[str], filter_string: str, at_once: int | None = None, *, once: bool = False
    ) -> Iterator[LadderRun]:
        """Runs, newest first. The next page is asked for when it is needed.

        Each run comes once, also if new ones have moved it to another page meanwhile.
        """
        seen: set[str] = set()
        token: str | None = None
        while True:
            ask = partial(
                self.client.search_runs, experiments, filter_string,
                order_by=["attributes.start_time DESC"], max_results=at_once or _AT_ONCE, page_token=token,
            )  # fmt: skip
            page = self._ask(ask, once=once)
            for run in map(typed, page):
                if run.run_id not in seen:
                    seen.add(run.run_id)
                    yield run
            if not (token := page.token):
                return

    def _search(self, experiments: list[str], filter_string: str, *, once: bool = False) -> list[LadderRun]:
        """All runs, newest first."""
        return list(self._pages(experiments, filter_string, once=once))

    def _transfer(self, run: Run, call: Callable[[], Answer], *, reads: bool = False, size: int = 0) -> Answer:
        """Makes a call that writes or reads an artifact of a run. Raises NotHad where it could not be done."""
        try:
            self._artifact_presence.check()
        except InfrastructureFailure:  # no attempt ends for it
            folder = mlflow_artifacts(self.root)
            self.tell(f"{folder} has been removed while it was in use; what comes is written to a new one")
            self._artifact_presence = Presence([folder])
        place = run.info.artifact_uri.rpartition(run.info.run_id)[0] + (" (reading)" if reads else "")
        wait = partial(self._ask, partial(self.client.get_run, run.info.run_id))
        return self._artifact_store.attempt(place, call, self.patience, wait, size)

    def tell(self, text: str) -> None:
        """Tells the user."""
        if self.patience is not None:
            self.patience.tell(text)
        else:
            _log.warning("%s", text)
