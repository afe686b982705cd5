"""The connection to an MLflow store, which is asked until it answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from pipeline.attempt.folder import matplotlib_cache, mlflow_artifacts
from pipeline.tracking.access import create_database, reachable
from pipeline.tracking.environment import prepare_mlflow
from pipeline.tracking.moved import follow, is_own
from pipeline.tracking.patience import Patience
from pipeline.tracking.runs import LadderRun, typed

Answer = TypeVar("Answer")
_DELETED = re.compile(r"The run (\w+) must be in the 'active' state\. Current state is deleted")
"""MLflow's answer where something is said to a run that has been deleted."""


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
        with reachable(uri):
            if uri.startswith("sqlite:///"):
                self._artifacts = mlflow_artifacts(root).as_uri()
                create_database(Path(uri.removeprefix("sqlite:///")), self._artifacts)
                follow(uri, root)
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    @property
    def is_own(self) -> bool:
        """Whether it is the SQLite file under the root, and so of nothing else."""
        return is_own(self.uri, self.root)

    def _ask(self, call: Callable[[], Answer], *, once: bool = False) -> Answer:
        """Makes a call, which changes nothing if it is made twice.

        Raises:
            StoreAway: `once` was asked for, and it does not answer now.
            InfrastructureFailure: it refuses, or is away for good.
        """

        def asked() -> Answer:
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

    def _experiments(self) -> list[str]:
        """Ids of MLflow's experiments."""
        found = self._ask(partial(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY))
        return [each.experiment_id for each in found]

    def _search(self, experiments: list[str], filter_string: str) -> list[LadderRun]:
        """Runs, newest first."""
        order = ["attributes.start_time DESC"]
        search = partial(self.client.search_runs, experiments, filter_string, order_by=order, max_results=1000)
        return [typed(run) for run in self._ask(search)]
