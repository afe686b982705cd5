"""All that is said to MLflow, by the orchestrator and by the trainer. No other module imports it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy.exc import SQLAlchemyError

from pipeline.attempt import WarmStart
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import InfrastructureFailure
from pipeline.health.history import History
from pipeline.health.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

URI_VARIABLE, RUN_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"
CONFIGURATION = "experiment.yaml"
"""The artifact that holds a run's configuration."""
_PARAM_LIMIT = 6000  # characters of a param's value, MLflow's own limit
_TAG_LIMIT = 8000
_EXPERIMENT_TAGS = {
    # Which of its two faces the UI shows, and which metric its table shows first.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "score_window",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}

for _name in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration", "mlflow.tracking.fluent"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def tracking_root(config: ExperimentConfig) -> Path:
    """The folder of everything that an experiment writes, absolute, with `~` for the home folder."""
    return Path(config.tracking.root).expanduser().resolve()


def tracking_uri(config: ExperimentConfig) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else the SQLite file under `tracking.root`."""
    return os.environ.get(URI_VARIABLE) or config.tracking.uri or default_uri(tracking_root(config))


def default_uri(root: Path) -> str:
    """The SQLite file under a tracking root."""
    return f"sqlite:///{root / 'mlflow.db'}"


@contextlib.contextmanager
def _reachable(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, sqlite3.Error) as error:
        raise InfrastructureFailure(f"tracking store {uri}: {' '.join(str(error).split())[:300]}") from error


def create_database(database: Path, artifacts: str) -> None:
    """Makes an SQLite store where there is none; whole or not at all.

    MLflow creates its tables one after another in place, and whoever opens the file meanwhile (a second experiment,
    the UI) makes both fail. So it is made beside, under a lock, and then moved.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with (database.parent / f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists():
            return
        unfinished = database.with_name(f".{database.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", artifacts)
        store.engine.dispose()
        with contextlib.closing(sqlite3.connect(unfinished)) as connection:
            connection.execute("PRAGMA journal_mode=wal")  # readers and writers do not wait for each other
        unfinished.replace(database)


class Store:
    """The MLflow store of one tracking root.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        # Its cache of fonts, which it would write to the home folder; also for the processes that are started.
        os.environ.setdefault("MPLCONFIGDIR", str(root / "matplotlib"))
        self._artifacts: str | None = None
        with _reachable(uri):
            if uri.startswith("sqlite:///"):
                self._artifacts = (self.root / "artifacts").as_uri()
                create_database(Path(uri.removeprefix("sqlite:///")), self._artifacts)
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)

    # What the orchestrator says

    def experiment_id(self, name: str) -> str:
        with _reachable(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
            return str(self.client.create_experiment(name, artifact_location=self._artifacts, tags=_EXPERIMENT_TAGS))

    def start_parent(self, config: ExperimentConfig) -> str:
        """The run of the whole experiment; its attempts are nested in it."""
        tags = {"ladder.kind": "experiment", "mlflow.source.name": "ladder", "mlflow.source.type": "LOCAL"}
        if config.experiment.description:
            tags["mlflow.note.content"] = config.experiment.description
        return self._start(config, f"{config.experiment.name} seed {config.training.seed}", tags)

    def start_attempt(
        self,
        parent: str,
        config: ExperimentConfig,
        *,
        rung: str,
        number: int,
        diff: Mapping[str, Any],
        warm_start: WarmStart | None,
        reason: str,
    ) -> str:
        """A nested run for one attempt, RUNNING, with everything that is known before it begins."""
        start = {"run_id": warm_start.run_id, "episode": warm_start.episode} if warm_start else None
        tags = {
            "mlflow.parentRunId": parent,
            "mlflow.source.name": "ladder",
            "mlflow.source.type": "LOCAL",
            "ladder.kind": "attempt",
            "ladder.rung": rung,
            "ladder.attempt": str(number),
            "ladder.reason": reason,
            "ladder.diff": json.dumps(diff),
            "ladder.warm_start": json.dumps(start) if start else "scratch",
        }
        return self._start(config, f"{number} {rung}", tags)

    def _start(self, config: ExperimentConfig, name: str, tags: dict[str, str]) -> str:
        experiment = self.experiment_id(config.experiment.name)
        with _reachable(self.uri):
            run = self.client.create_run(experiment, run_name=name, tags={key: _cut(tags[key]) for key in tags})
            run_id = str(run.info.run_id)
            params = [Param(key, _param(value)) for key, value in flatten(config).items()]
            self.client.log_batch(run_id, params=params)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            self.client.log_text(run_id, text, CONFIGURATION)
        return run_id

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        with _reachable(self.uri):
            self.client.log_batch(run_id, tags=[RunTag(key, _cut(value)) for key, value in tags.items()])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        with _reachable(self.uri):
            log_metrics(self.client, run_id, metrics, step)

    def end_attempt(self, run_id: str, verdict: Verdict) -> None:
        """Verdict, evidence, and the status that says the same: only a healthy attempt is FINISHED."""
        evidence = [each.model_dump(mode="json") for each in verdict.evidence]
        with _reachable(self.uri):
            self.set_tags(
                run_id,
                {
                    "ladder.verdict": verdict.name,
                    "ladder.evidence": _evidence_tag(evidence),
                    "mlflow.note.content": f"**{verdict.name}** {verdict.sentence}",
                },
            )
            self.client.log_dict(run_id, {"verdict": verdict.name, "evidence": evidence}, "verdict.json")
            self.client.set_terminated(run_id, _status(verdict.name))

    def end_parent(self, run_id: str, outcome: str, settled_rung: str | None, table: pd.DataFrame, note: str) -> None:
        """Outcome, settled rung, attempts table and note; FINISHED, FAILED or KILLED."""
        tags = {"ladder.outcome": outcome, "mlflow.note.content": note}
        if settled_rung is not None:
            tags["ladder.settled_rung"] = settled_rung
        with _reachable(self.uri):
            self.set_tags(run_id, tags)
            self.client.log_table(run_id, table, "attempts.json")
            self.client.set_terminated(run_id, _status(outcome))

    def log_figure(self, run_id: str, figure: Figure, path: str) -> None:
        with _reachable(self.uri):
            self.client.log_figure(run_id, figure, path)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        with _reachable(self.uri):
            self.client.log_artifact(run_id, str(path), folder)

    # What the orchestrator asks

    def latest(self, run_id: str) -> dict[str, tuple[int, float, int]]:
        """Newest (step, value, time) of every metric, in one call whose cost does not grow with the run."""
        with _reachable(self.uri):
            run = self.client.get_run(run_id)
        return {metric.key: (metric.step, metric.value, metric.timestamp) for metric in run.data._metric_objs}

    def history(self, run_id: str, metrics: Iterable[str]) -> History:
        """Complete histories of some metrics. One that was logged without steps has its times (ms) for steps."""
        with _reachable(self.uri):
            points = {name: self.client.get_metric_history(run_id, name) for name in metrics}
        return History(
            {
                name: [(each.step if any(one.step for one in found) else each.timestamp, each.value) for each in found]
                for name, found in points.items()
            }
        )

    def run(self, run_id: str) -> Run | None:
        """A run of this store, or None."""
        with _reachable(self.uri):
            try:
                return self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def children(self, parent: Run) -> list[Run]:
        """The runs nested in a run, oldest first."""
        with _reachable(self.uri):
            return list(
                self.client.search_runs(
                    [parent.info.experiment_id],
                    filter_string=f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
                    order_by=["attributes.start_time ASC"],
                )
            )

    def configuration(self, run_id: str) -> dict[str, Any] | None:
        """The configuration with which a run was started, as a mapping; None if it has none."""
        with _reachable(self.uri):
            if not any(each.path == CONFIGURATION for each in self.client.list_artifacts(run_id)):
                return None
            with tempfile.TemporaryDirectory() as folder:
                local = self.client.download_artifacts(run_id, CONFIGURATION, folder)
                found = yaml.safe_load(Path(local).read_text())
        return found if isinstance(found, dict) else None

    def experiments(self) -> list[tuple[Experiment, list[Run]]]:
        """Every MLflow experiment with its ladder runs (parents and attempts), newest first."""
        with _reachable(self.uri):
            found = []
            for experiment in self.client.search_experiments(view_type=ViewType.ACTIVE_ONLY):
                runs = self.client.search_runs(
                    [experiment.experiment_id],
                    filter_string="tags.`ladder.kind` LIKE '%'",
                    order_by=["attributes.start_time DESC"],
                    max_results=1000,
                )
                if runs:
                    found.append((experiment, list(runs)))
            return sorted(found, key=lambda each: each[1][0].info.start_time, reverse=True)


class TrainerRun:
    """The run that an orchestrator has started for this process, found in the environment. Never ended from here."""

    def __init__(self) -> None:
        self._run_id = os.environ[RUN_VARIABLE]
        self._client = MlflowClient(tracking_uri=os.environ[URI_VARIABLE])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """One synchronous batch: nothing is queued, so nothing is lost with the process."""
        log_metrics(self._client, self._run_id, metrics, step)


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """One batch. Values that are not finite are left out (MLflow's run page fails on NaN) and counted instead."""
    finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
    if len(finite) < len(metrics):
        finite["nonfinite_metrics"] = float(len(metrics) - len(finite))
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in finite.items()])


def _status(name: str) -> str:
    statuses = {"healthy": RunStatus.FINISHED, "interrupted": RunStatus.KILLED}
    return str(RunStatus.to_string(statuses.get(name, RunStatus.FAILED)))


def _param(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text[:_PARAM_LIMIT]


def _cut(text: str) -> str:
    return text if len(text) <= _TAG_LIMIT else text[: _TAG_LIMIT - 1] + "…"


def _evidence_tag(evidence: list[dict[str, Any]]) -> str:
    """As JSON that stays JSON: where it is too long for a tag, the log's tail goes first, then older values."""
    text = json.dumps(evidence)
    if len(text) > _TAG_LIMIT:
        short = [{**each, "values": each["values"][-10:], "detail": {}} for each in evidence]
        text = json.dumps(short)
    return text
