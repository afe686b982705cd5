"""The connection to an MLflow store, which is asked until it answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import ViewType

from pipeline.attempt.folder import matplotlib_cache, mlflow_artifacts
from pipeline.foreign.names import Names
from pipeline.tracking.access import create_database, reachable
from pipeline.tracking.environment import prepare_mlflow
from pipeline.tracking.patience import Patience
from pipeline.tracking.runs import LadderRun, typed

Answer = TypeVar("Answer")


class Connection:
    """A store that is open. With `patience`, it is asked until it answers; without, once.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        prepare_mlflow()
        # Matplotlib would write its cache of fonts to the home folder, in this process and in those that it starts.
        os.environ.setdefault("MPLCONFIGDIR", str(matplotlib_cache(root)))
        self.patience: Patience | None = None
        self._artifacts: str | None = None
        self._known_names: dict[str, Names] = {}
        with reachable(uri):
            if uri.startswith("sqlite:///"):
                self._artifacts = mlflow_artifacts(root).as_uri()
                create_database(Path(uri.removeprefix("sqlite:///")), self._artifacts)
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    def _ask(self, call: Callable[[], Answer], *, once: bool = False) -> Answer:
        """Makes a call, which changes nothing if it is made twice.

        Raises:
            StoreAway: `once` was asked for, and it does not answer now.
            InfrastructureFailure: it refuses, or is away for good.
        """

        def asked() -> Answer:
            with reachable(self.uri):
                return call()

        if self.patience is None:
            return asked()
        return self.patience.once(asked) if once else self.patience.insist(asked)

    def _experiments(self) -> list[str]:
        """Ids of MLflow's experiments."""
        found = self._ask(partial(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY))
        return [each.experiment_id for each in found]

    def _search(self, experiments: list[str], filter_string: str) -> list[LadderRun]:
        """Runs, newest first."""
        order = ["attributes.start_time DESC"]
        search = partial(self.client.search_runs, experiments, filter_string, order_by=order, max_results=1000)
        return [typed(run) for run in self._ask(search)]
