"""All that is said to MLflow about runs, by the orchestrator and by the trainer (models: `training.logged_model`)."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pandas as pd
import yaml
from mlflow import MlflowClient
from mlflow.entities import Experiment, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pipeline.attempt.file import RUN_VARIABLE, URI_VARIABLE, WarmStart
from pipeline.attempt.spool import Report, Spool, finite
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import BadInput, DiskFull
from pipeline.health.history import History
from pipeline.health.verdict import MEANINGS, Verdict
from pipeline.tracking.access import (
    THEIR_WAITING,
    TrainerRun,
    create_database,
    default_uri,
    has_store,
    reachable,
    send_reports,
    tracking_root,
    tracking_uri,
)
from pipeline.tracking.patience import Patience

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "RUN_VARIABLE",
    "THEIR_WAITING",
    "URI_VARIABLE",
    "Run",
    "Store",
    "TrainerRun",
    "default_uri",
    "has_store",
    "open_store",
    "tracking_root",
    "tracking_uri",
]
Answer = TypeVar("Answer")
ATTENTION, BEST_EPISODE = "figures/attention.svg", "figures/best_episode.gif"
"""Artifacts that a trainer leaves when an attempt has been trained to the end."""
_PARAM_LIMIT = 6000  # characters of a param's value, MLflow's own limit
_TAG_LIMIT = 8000
_SAID_AT_THE_END = {"ladder.verdict", "ladder.evidence", "ladder.outcome", "mlflow.note.content"}
_SOURCE = {"mlflow.source.name": "ladder", "mlflow.source.type": "LOCAL"}
_EXPERIMENT_TAGS = {
    # Which of its two faces the UI shows, and which metric its table shows first.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.experiment.primaryMetric.name": "score_window",
    "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
}


def open_store(config: ExperimentConfig) -> Store:
    """The store of a configuration, for reading. Raises BadInput where it would be a new one, which is not made."""
    root = tracking_root(config)
    if not has_store(config):
        raise BadInput(f"no experiments yet under {root}")
    return Store(tracking_uri(config), root)


class Store:
    """The MLflow store of one tracking root.

    With `patience`, it is asked until it answers; without, once.

    Raises:
        InfrastructureFailure: it cannot be reached.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri, self.root = uri, root
        # Its cache of fonts, which it would write to the home folder; also for the processes that are started.
        os.environ.setdefault("MPLCONFIGDIR", str(root / "matplotlib"))
        self.patience: Patience | None = None
        self._artifacts: str | None = None
        with reachable(uri):
            if uri.startswith("sqlite:///"):
                self._artifacts = (self.root / "artifacts").as_uri()
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

    # What the orchestrator says

    def experiment_id(self, name: str) -> str:
        def found_or_made() -> str:
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
            try:
                made = self.client.create_experiment(name, artifact_location=self._artifacts, tags=_EXPERIMENT_TAGS)
                return str(made)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return found_or_made()  # somebody else has made it meanwhile

        return self._ask(found_or_made)

    def start_parent(self, config: ExperimentConfig, tags: Mapping[str, str] | None = None) -> str:
        """The run of the whole experiment; its attempts are nested in it."""
        tags = {
            **(tags or {}),
            "ladder.kind": "experiment",
            # The artifact says it too, but is written a moment later: what is cut off before can still be continued.
            "ladder.settings": config.model_dump_json(exclude_defaults=True),
        }
        if config.experiment.description:
            tags["mlflow.note.content"] = config.experiment.description
        return self.start_run(config, f"{config.experiment.name} seed {config.training.seed}", tags)

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
            "ladder.kind": "attempt",
            "ladder.rung": rung,
            "ladder.attempt": str(number),
            "ladder.reason": reason,
            "ladder.diff": _json_tag(diff),
            "ladder.warm_start": json.dumps(start) if start else "scratch",
        }
        return self.start_run(config, f"{number} {rung}", tags)

    def start_run(self, config: ExperimentConfig, name: str, tags: Mapping[str, str]) -> str:
        """A run of any kind, RUNNING, with its tags and its configuration."""
        run_id = self._create_run(config, name, {**_SOURCE, **tags})
        self.describe(run_id, config)
        return run_id

    def _create_run(self, config: ExperimentConfig, name: str, tags: Mapping[str, str]) -> str:
        """A run, once: if the answer to the first call was lost with the connection, the run is found by its key."""
        experiment = self.experiment_id(config.experiment.name)
        tags = {key: _cut(value) for key, value in tags.items()} | {"ladder.key": uuid.uuid4().hex}
        tries = 0

        def found_or_made() -> str:
            nonlocal tries
            tries += 1
            made = self.client.search_runs([experiment], f"tags.`ladder.key` = '{tags['ladder.key']}'")
            if tries > 1 and made:
                return str(made[0].info.run_id)
            return str(self.client.create_run(experiment, run_name=name, tags=tags).info.run_id)

        return self._ask(found_or_made)

    def describe(self, run_id: str, config: ExperimentConfig) -> None:
        """The whole configuration, as params and as an artifact."""
        params = [Param(key, _param(value)) for key, value in flatten(config).items()]
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        if not self._ask(partial(self.client.get_run, run_id)).data.params:  # a param is said once
            self._ask(partial(self.client.log_batch, run_id, params=params))
        self._ask(partial(self.client.log_text, run_id, text, "experiment.yaml"))

    def set_tags(self, run_id: str, tags: Mapping[str, str], *, once: bool = False) -> None:
        given = [RunTag(key, _cut(value)) for key, value in tags.items()]
        self._ask(partial(self.client.log_batch, run_id, tags=given), once=once)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0, at: int | None = None) -> None:
        """One batch; `at`: milliseconds since 1970, now by default."""
        report = Report(int(time.time() * 1000) if at is None else at, step, finite(metrics))
        self._ask(partial(send_reports, self.client, run_id, [report]))

    def deliver(self, run_id: str, spool: Spool, *, once: bool = False) -> None:
        """What a trainer has reported and the store does not have, in order; the same once more changes nothing."""
        while (pending := spool.pending())[0]:
            self._ask(partial(send_reports, self.client, run_id, pending[0]), once=once)
            spool.mark(pending[1])

    def end_attempt(self, run_id: str, verdict: Verdict, summary: str = "") -> None:
        """Verdict, evidence, and the status that says the same: only a healthy attempt is FINISHED.

        The run's note says it in two lines: the verdict with its evidence or meaning, and the summary.
        """
        evidence = [each.model_dump(mode="json") for each in verdict.evidence]
        why = verdict.sentence or MEANINGS[verdict.name]
        self.set_tags(
            run_id,
            {
                "ladder.verdict": verdict.name,
                "ladder.evidence": _evidence_tag(evidence),
                "mlflow.note.content": f"**{verdict.name}** – {why}\n\n{summary}".rstrip(),
            },
        )
        text = json.dumps({"verdict": verdict.name, "evidence": evidence}, indent=2)
        with contextlib.suppress(DiskFull):  # tags and status say the same
            self.log_text(run_id, text, "verdict.json")
        self._ask(partial(self.client.set_terminated, run_id, _status(verdict.name)))

    def end_parent(
        self, run_id: str, outcome: str, settled_rung: str | None, table: pd.DataFrame | None, note: str
    ) -> None:
        """Outcome, settled rung, attempts table and note; FINISHED, FAILED or KILLED."""
        tags = {"ladder.outcome": outcome, "mlflow.note.content": note}
        if settled_rung is not None:
            tags["ladder.settled_rung"] = settled_rung
        self.set_tags(run_id, tags)
        if table is not None:
            # Not `log_table`, which adds to the table of an experiment that was interrupted before.
            with contextlib.suppress(DiskFull):  # the note has it too
                self.log_text(run_id, table.to_json(orient="split", index=False, date_format="iso"), "attempts.json")
            self.set_tags(run_id, {"mlflow.loggedArtifacts": json.dumps([{"path": "attempts.json", "type": "table"}])})
        self._ask(partial(self.client.set_terminated, run_id, _status(outcome)))

    def reopen(self, run_id: str, config: ExperimentConfig, tags: Mapping[str, str]) -> None:
        """RUNNING again, with these tags, and without what was said at its end."""
        if self.read_text(run_id, "experiment.yaml") is None:  # it was cut off before it was described
            self.describe(run_id, config)

        def again() -> None:
            self.client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            for tag in self.client.get_run(run_id).data.tags.keys() & _SAID_AT_THE_END:
                self.client.delete_tag(run_id, tag)

        self._ask(again)
        self.set_tags(run_id, tags)

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._ask(partial(self.client.log_artifact, run_id, str(path), folder))

    def log_figure(self, run_id: str, figure: Figure, name: str) -> None:
        self._ask(partial(self.client.log_figure, run_id, figure, name))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self._ask(partial(self.client.log_text, run_id, text, name))

    # What the orchestrator asks

    def latest(self, run_id: str, *, once: bool = False) -> dict[str, tuple[int, float, int]]:
        """Newest (step, value, time) of every metric, in one call whose cost does not grow with the run."""
        run = self._ask(partial(self.client.get_run, run_id), once=once)
        return {metric.key: (metric.step, metric.value, metric.timestamp) for metric in run.data._metric_objs}

    def history(self, run_id: str, metrics: Iterable[str], *, once: bool = False) -> History:
        """Complete histories of some metrics. One that was logged without steps has its times (ms) for steps."""
        ask = partial(self._ask, once=once)
        points = {name: ask(partial(self.client.get_metric_history, run_id, name)) for name in metrics}
        return History(
            {
                name: [(each.step if any(one.step for one in found) else each.timestamp, each.value) for each in found]
                for name, found in points.items()
            }
        )

    def experiments(self) -> list[tuple[Experiment, list[Run]]]:
        """Every MLflow experiment with its ladder runs (parents and attempts), newest first."""
        found = []
        for experiment in self._ask(partial(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY)):
            runs = self._search([experiment.experiment_id], "tags.`ladder.kind` LIKE '%'")
            if runs:
                found.append((experiment, runs))
        return sorted(found, key=lambda each: each[1][0].info.start_time, reverse=True)

    def parents(self) -> list[Run]:
        """The run of every experiment, newest first."""
        return self._search(self._experiments(), "tags.`ladder.kind` = 'experiment'")

    def left_running(self) -> list[Run]:
        """The experiments (parent runs) that are RUNNING, or have an attempt that is."""
        running = self._search(self._experiments(), "attributes.status = 'RUNNING' and tags.`ladder.kind` LIKE '%'")
        ids = dict.fromkeys(run.data.tags.get("mlflow.parentRunId", run.info.run_id) for run in running)
        return [run for run in map(self.run, ids) if run is not None]

    def run(self, run_id: str) -> Run | None:
        """A run, or None if there is none of that id."""

        def ask() -> Run | None:
            try:
                return self.client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

        return self._ask(ask)

    def attempts(self, parent: Run) -> list[Run]:
        """The nested runs of a parent, by number."""
        filter_string = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`ladder.kind` = 'attempt'"
        found = self._search([parent.info.experiment_id], filter_string)
        return sorted(found, key=lambda run: int(run.data.tags["ladder.attempt"]))

    def find(self, word: str) -> Run:
        """The ladder run with this id, or with the only one that begins so (four letters at least). Raises BadInput."""
        runs = {run.info.run_id: run for _, each in self.experiments() for run in each}
        fit = [run_id for run_id in runs if run_id == word or (len(word) >= 4 and run_id.startswith(word))]
        if len(fit) != 1:
            known = [run_id for run_id, run in runs.items() if run.data.tags["ladder.kind"] == "experiment"]
            problem = f"{len(fit)} runs begin so" if fit else f"no such run in {self.uri}"
            raise BadInput(f"{word}: {problem}; experiments, newest first: {', '.join(known[:5]) or 'none'}")
        return runs[fit[0]]

    def points(self, run_id: str, metrics: Iterable[str]) -> dict[str, list[tuple[int, int, float]]]:
        """Complete histories as (step, time in ms, value), as logged; without the metrics that have none."""
        found = {name: self._ask(partial(self.client.get_metric_history, run_id, name)) for name in metrics}
        return {
            name: [(each.step, each.timestamp, each.value) for each in found[name]] for name in found if found[name]
        }

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """The content of an artifact, or None if there is no such one."""
        with TemporaryDirectory() as folder, contextlib.suppress(MlflowException, OSError):
            return Path(self.client.download_artifacts(run_id, path, folder)).read_bytes()
        return None

    def read_text(self, run_id: str, name: str) -> str | None:
        """A text artifact, or None if there is none of that name."""

        def ask() -> str | None:
            if name not in [each.path for each in self.client.list_artifacts(run_id)]:
                return None
            with TemporaryDirectory() as folder:
                return Path(self.client.download_artifacts(run_id, name, folder)).read_text()

        return self._ask(ask)

    def _experiments(self) -> list[str]:
        return [each.experiment_id for each in self._ask(partial(self.client.search_experiments))]

    def _search(self, experiments: list[str], filter_string: str) -> list[Run]:
        order = ["attributes.start_time DESC"]
        search = partial(self.client.search_runs, experiments, filter_string, order_by=order, max_results=1000)
        return list(self._ask(search))


def _status(name: str) -> str:
    statuses = {"healthy": RunStatus.FINISHED, "interrupted": RunStatus.KILLED}
    return str(RunStatus.to_string(statuses.get(name, RunStatus.FAILED)))


def _param(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text[:_PARAM_LIMIT]


def _cut(text: str) -> str:
    return text if len(text) <= _TAG_LIMIT else text[: _TAG_LIMIT - 1] + "…"


def _json_tag(values: Mapping[str, Any]) -> str:
    """As JSON that stays JSON: where it is too long for a tag, long values are cut, and as many keys kept as fit."""
    text = json.dumps(values)
    if len(text) <= _TAG_LIMIT:
        return text
    kept: dict[str, Any] = {}
    for key, value in values.items():
        short = [each if len(said := json.dumps(each)) <= 200 else f"{said[:200]}…" for each in value]
        if len(json.dumps({**kept, key: short})) > _TAG_LIMIT:
            break
        kept[key] = short
    return json.dumps(kept)


def _evidence_tag(evidence: list[dict[str, Any]]) -> str:
    """As JSON that stays JSON: where it is too long for a tag, the log's tail goes first, then older values."""
    text = json.dumps(evidence)
    if len(text) > _TAG_LIMIT:
        short = [{**each, "values": each["values"][-10:], "detail": {}} for each in evidence]
        text = json.dumps(short)
    return text
