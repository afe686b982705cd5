"""What is said to the store: runs with their tags, metrics, verdicts and artifacts."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline.attempt.file import WarmStart
from pipeline.attempt.spool import Report, Spool, finite
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import DiskFull
from pipeline.health.verdict import Verdict, meaning_of
from pipeline.tracking import tags
from pipeline.tracking.access import send_reports
from pipeline.tracking.artifacts import ATTEMPTS, CONFIGURATION, VERDICT
from pipeline.tracking.connection import Connection
from pipeline.tracking.runs import FROM_SCRATCH
from pipeline.tracking.serialise import cut, difference_tag, evidence_tag, param, status_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SOURCE = {tags.SOURCE_NAME: "ladder", tags.SOURCE_TYPE: "LOCAL"}
_EXPERIMENT_TAGS = {
    tags.EXPERIMENT_KIND: "custom_model_development",
    tags.PRIMARY_METRIC: "score_window",
    tags.PRIMARY_METRIC_RISES: "True",
}


class Writer(Connection):
    """The statements to a store."""

    # Beginnings

    def experiment_id(self, name: str) -> str:
        """The id of the MLflow experiment of this name, which is made, or restored, if need be."""

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
                return found_or_made()  # another process has made it meanwhile

        return self._ask(found_or_made)

    def start_parent(self, config: ExperimentConfig, more: Mapping[str, str] | None = None) -> str:
        """The run of the whole experiment; its attempts are nested in it. `more`: further tags."""
        said = {
            **(more or {}),
            tags.KIND: "experiment",
            # The artifact says it too, but is written a moment later: what is cut off before can still be continued.
            tags.SETTINGS: config.model_dump_json(exclude_defaults=True),
        }
        if config.experiment.description:
            said[tags.NOTE] = config.experiment.description
        return self.start_run(config, f"{config.experiment.name} seed {config.training.seed}", said)

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
        said = {
            tags.PARENT: parent,
            tags.KIND: "attempt",
            tags.RUNG: rung,
            tags.NUMBER: str(number),
            tags.REASON: reason,
            tags.DIFF: difference_tag(diff),
            tags.WARM_START: json.dumps(start) if start else FROM_SCRATCH,
        }
        return self.start_run(config, f"{number} {rung}", said)

    def start_run(self, config: ExperimentConfig, name: str, said: Mapping[str, str]) -> str:
        """A run of any kind, RUNNING, with its tags and its configuration."""
        run_id = self._create_run(config, name, {**_SOURCE, **said})
        self.describe(run_id, config)
        return run_id

    def _create_run(self, config: ExperimentConfig, name: str, said: Mapping[str, str]) -> str:
        """A run, once: if the answer to the first call was lost with the connection, the run is found by its key."""
        experiment = self.experiment_id(config.experiment.name)
        key = uuid.uuid4().hex
        given = {name: cut(text) for name, text in said.items()} | {tags.KEY: key}
        tries = 0

        def found_or_made() -> str:
            nonlocal tries
            tries += 1
            made = self.client.search_runs([experiment], f"tags.`{tags.KEY}` = '{key}'")
            if tries > 1 and made:
                return str(made[0].info.run_id)
            return str(self.client.create_run(experiment, run_name=name, tags=given).info.run_id)

        return self._ask(found_or_made)

    def describe(self, run_id: str, config: ExperimentConfig) -> None:
        """Logs the whole configuration, as params and as an artifact."""
        params = [Param(key, param(value)) for key, value in flatten(config).items()]
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        if not self._ask(partial(self.client.get_run, run_id)).data.params:  # a param is said once
            self._ask(partial(self.client.log_batch, run_id, params=params))
        self._ask(partial(self.client.log_text, run_id, text, CONFIGURATION))

    # In between

    def set_tags(self, run_id: str, said: Mapping[str, str], *, once: bool = False) -> None:
        """Sets tags, by the names in :mod:`pipeline.tracking.tags`."""
        given = [RunTag(name, cut(text)) for name, text in said.items()]
        self._ask(partial(self.client.log_batch, run_id, tags=given), once=once)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0, at: int | None = None) -> None:
        """Logs one batch; `at`: milliseconds since 1970, now by default."""
        report = Report(int(time.time() * 1000) if at is None else at, step, finite(metrics))
        self._ask(partial(send_reports, self.client, run_id, [report]))

    def deliver(self, run_id: str, spool: Spool, *, once: bool = False) -> None:
        """Logs what a trainer has reported and the store does not have, in order. A second call changes nothing."""
        while (pending := spool.pending())[0]:
            self._ask(partial(send_reports, self.client, run_id, pending[0]), once=once)
            spool.mark(pending[1])

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        self._ask(partial(self.client.log_artifact, run_id, str(path), folder))

    def log_figure(self, run_id: str, figure: Figure, name: str) -> None:
        self._ask(partial(self.client.log_figure, run_id, figure, name))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self._ask(partial(self.client.log_text, run_id, text, name))

    # Ends

    def end_attempt(self, run_id: str, verdict: Verdict, summary: str = "") -> None:
        """Sets verdict, evidence, and the status that says the same: only a healthy attempt is FINISHED.

        The run's note has two lines: the verdict with its evidence or meaning, and the summary.
        """
        evidence = [each.model_dump(mode="json") for each in verdict.evidence]
        why = verdict.sentence or meaning_of(verdict.name)
        said = {
            tags.VERDICT: verdict.name,
            tags.EVIDENCE: evidence_tag(evidence),
            tags.NOTE: f"**{verdict.name}** – {why}\n\n{summary}".rstrip(),
        }
        self.set_tags(run_id, said)
        text = json.dumps({"verdict": verdict.name, "evidence": evidence}, indent=2)
        with contextlib.suppress(DiskFull):  # tags and status say the same
            self.log_text(run_id, text, VERDICT)
        self._ask(partial(self.client.set_terminated, run_id, status_of(verdict.name)))

    def end_parent(
        self, run_id: str, outcome: str, settled_rung: str | None, table: pd.DataFrame | None, note: str
    ) -> None:
        """Sets outcome, settled rung, attempts table and note; FINISHED, FAILED or KILLED."""
        said = {tags.OUTCOME: outcome, tags.NOTE: note}
        if settled_rung is not None:
            said[tags.SETTLED_RUNG] = settled_rung
        self.set_tags(run_id, said)
        if table is not None:
            # Not `log_table`, which adds to the table of an experiment that was interrupted before.
            with contextlib.suppress(DiskFull):  # the note has it too
                self.log_text(run_id, table.to_json(orient="split", index=False, date_format="iso"), ATTEMPTS)
            self.set_tags(run_id, {tags.LOGGED_ARTIFACTS: json.dumps([{"path": ATTEMPTS, "type": "table"}])})
        self._ask(partial(self.client.set_terminated, run_id, status_of(outcome)))
