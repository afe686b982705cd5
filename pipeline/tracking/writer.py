"""What is said to the store: runs with their tags, metrics, verdicts and artifacts."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from mlflow.entities import Param, Run, RunTag
from mlflow.exceptions import MlflowException

from pipeline.attempt.file import WarmStart
from pipeline.attempt.record import label_of
from pipeline.attempt.spool import Report, Spool, finite
from pipeline.config import ExperimentConfig, flatten
from pipeline.errors import InfrastructureFailure
from pipeline.foreign.names import Names
from pipeline.health.verdict import Verdict
from pipeline.secrets import hidden_in, without_passwords
from pipeline.tracking import tags
from pipeline.tracking.artifact_store import NotHad
from pipeline.tracking.artifacts import ATTEMPTS, CONFIGURATION, VERDICT
from pipeline.tracking.batches import log_metrics, log_params, set_tags
from pipeline.tracking.connection import Connection
from pipeline.tracking.runs import FROM_SCRATCH
from pipeline.tracking.serialise import cut, difference_tag, evidence_tag, in_parts, param, status_of
from pipeline.tracking.view import KEY, shared_view

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

    def __init__(self, uri: str, root: Path) -> None:
        super().__init__(uri, root)
        self._refused_metrics: set[str] = set()
        self._said: set[str] = set()
        """What the user has been told of that the store does not take."""

    # Beginnings

    def experiment_id(self, name: str) -> str:
        """The id of the MLflow experiment of this name, which is made, or restored, if need be."""
        made = False

        def found_or_made() -> str:
            nonlocal made
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
            try:
                own = self.client.create_experiment(name, artifact_location=self._artifacts, tags=_EXPERIMENT_TAGS)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                return found_or_made()  # another process has made it meanwhile
            made = True
            return str(own)

        experiment_id = self._ask(found_or_made)
        if made:  # afterwards: a store that does not take the view takes the experiment
            self.offer_view(experiment_id)
        return experiment_id

    def offer_view(self, experiment_id: str) -> None:
        """Puts the view of the attempts into an MLflow experiment that was made without it, if it can be written.

        One that is there stays as it is: a user may have changed it.
        """
        name = f"{tags.VIEW}{KEY}"
        with contextlib.suppress(InfrastructureFailure):
            if name not in self._ask(partial(self.client.get_experiment, experiment_id)).tags:
                self._ask(partial(self.client.set_experiment_tag, experiment_id, name, shared_view()))

    def start_parent(self, config: ExperimentConfig, more: Mapping[str, str] | None = None) -> str:
        """The run of the whole experiment; its attempts are nested in it. `more`: further tags."""
        said = {
            **(more or {}),
            tags.KIND: "experiment",
            # The artifact says it too, but is written a moment later, and may be out of reach.
            **in_parts(tags.SETTINGS, config.model_dump_json(exclude_defaults=True)),
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
        remedy: str | None = None,
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
        if remedy is not None:
            said[tags.REMEDY] = remedy
        if (names := Names.of(config).tag) is not None:
            said[tags.NAMES] = names
        return self.start_run(config, f"{number} {label_of(rung, remedy)}", said)

    def start_run(self, config: ExperimentConfig, name: str, said: Mapping[str, str]) -> str:
        """A run of any kind, RUNNING, with its tags and its configuration."""
        run_id = self._create_run(config, name, {**_SOURCE, **said})
        try:
            self.describe(run_id, config)
        except InfrastructureFailure:
            with contextlib.suppress(InfrastructureFailure):  # nobody hears of this run, so nobody would end it
                self._ask(partial(self.client.set_terminated, run_id, status_of("error")))
            raise
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
        text = yaml.safe_dump(hidden_in(config.model_dump(mode="json")), sort_keys=False, allow_unicode=True)
        said = self._ask(partial(self.client.get_run, run_id)).data.params  # a param is said once
        params = [Param(key, param(value)) for key, value in flatten(config).items() if key not in said]
        refused = self._ask(partial(log_params, self.client, run_id, params))
        self._note_refused(run_id, {f"param {key}": why for key, why in refused.items()})
        self.log_text(run_id, text, CONFIGURATION)

    # In between

    def set_tags(self, run_id: str, said: Mapping[str, str], *, once: bool = False) -> None:
        """Sets tags, by the names in :mod:`pipeline.tracking.tags`."""
        given = [RunTag(name, cut(text)) for name, text in said.items()]
        for name, why in self._ask(partial(set_tags, self.client, run_id, given), once=once).items():
            self.tell(f"tag {name}: not taken: {why}")

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0, at: int | None = None) -> None:
        """Logs one batch; `at`: milliseconds since 1970, now by default."""
        self._log_reports(run_id, [Report(int(time.time() * 1000) if at is None else at, step, finite(metrics))])

    def deliver(
        self, run_id: str, spool: Spool, *, once: bool = False, ended: bool = False
    ) -> dict[str, tuple[int, float]]:
        """Logs what a trainer has reported and the store does not have, in order. A second call changes nothing.

        Returns the last step and value of each metric in it. `ended`: nothing more will be written.
        """
        last: dict[str, tuple[int, float]] = {}
        while True:
            reports, position = spool.pending(ended=ended)
            if reports:
                self._log_reports(run_id, reports, once=once)
            for report in reports:
                last |= {name: (report.step, value) for name, value in report.metrics.items()}
            for sentence in spool.news():
                self.tell(f"run {run_id}: {sentence}")
            if position == spool.delivered:
                return last
            spool.mark(position)

    def _log_reports(self, run_id: str, reports: Sequence[Report], *, once: bool = False) -> None:
        apart = self._refused_metrics
        refused = self._ask(partial(log_metrics, self.client, run_id, reports, apart), once=once)
        self._note_refused(run_id, {f"metric {key}": why for key, why in refused.items()})

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> bool:
        """Uploads a file. Returns whether the store has it; if not, terminal and run say why."""
        name = f"{folder}/{path.name}" if folder else path.name
        size = path.stat().st_size if path.exists() else 0
        return self._upload(run_id, name, partial(self.client.log_artifact, run_id, str(path), folder), size)

    def log_figure(self, run_id: str, figure: Figure, name: str) -> bool:
        """The same with a picture."""
        return self._upload(run_id, name, partial(self.client.log_figure, run_id, figure, name))

    def log_text(self, run_id: str, text: str, name: str) -> bool:
        """The same with a text."""
        told = without_passwords(text)
        return self._upload(run_id, name, partial(self.client.log_text, run_id, told, name), len(told))

    def _upload(self, run_id: str, name: str, call: Callable[[], object], size: int = 0) -> bool:
        run = self._ask(partial(self.client.get_run, run_id))
        try:
            self._transfer(run, call, size=size)
        except NotHad as problem:
            if str(problem) not in self._said:  # once, however many files it keeps out
                self._said.add(str(problem))
                self.tell(f"{name} is not uploaded: {problem}; the run goes on without (tag {tags.NOT_STORED})")
            self._note(run, {name: str(problem)})
            return False
        self._note(run, {name: None})
        return True

    def _note_refused(self, run_id: str, refused: Mapping[str, str]) -> None:
        """Says what MLflow refuses of a run's metrics or params."""
        new = {what: why for what, why in refused.items() if what not in self._said}
        if not new:
            return
        self._said.update(new)
        more = f", and {len(new) - 1} more" if len(new) > 1 else ""
        what, why = next(iter(new.items()))
        self.tell(f"{what} is left out{more}: {why} (tag {tags.NOT_STORED})")
        self._note(self._ask(partial(self.client.get_run, run_id)), new)

    def _note(self, run: Run, changed: Mapping[str, str | None]) -> None:
        """Adds lines to what the run does not have; None: it has that now."""
        text = run.data.tags.get(tags.NOT_STORED, "")
        noted = dict(line.partition(": ")[::2] for line in text.splitlines())
        now = {what: why for what, why in (noted | dict(changed)).items() if why is not None}
        if now == noted:
            return
        if now:
            self.set_tags(run.info.run_id, {tags.NOT_STORED: "\n".join(f"{what}: {why}" for what, why in now.items())})
        else:
            self._ask(partial(self._without_tag, run.info.run_id, tags.NOT_STORED))

    def _without_tag(self, run_id: str, name: str) -> None:
        if name in self.client.get_run(run_id).data.tags:
            self.client.delete_tag(run_id, name)

    # Ends

    def end_attempt(self, run_id: str, verdict: Verdict, summary: str = "") -> None:
        """Sets verdict, evidence, and the status that says the same: only a healthy attempt is FINISHED.

        The run's note has two lines: the verdict with its evidence or meaning, and the summary.
        """
        evidence = [each.model_dump(mode="json") for each in verdict.evidence]
        why = verdict.sentence or verdict.meaning()
        said = {
            tags.VERDICT: verdict.name,
            tags.EVIDENCE: evidence_tag(evidence),
            tags.NOTE: f"**{verdict.name}** – {why}\n\n{summary}".rstrip(),
        }
        self.set_tags(run_id, said)
        text = json.dumps({"verdict": verdict.name, "evidence": evidence}, indent=2)
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
            content = table.to_json(orient="split", index=False, date_format="iso")
            if self.log_text(run_id, content, ATTEMPTS):  # the note has it too
                self.set_tags(run_id, {tags.LOGGED_ARTIFACTS: json.dumps([{"path": ATTEMPTS, "type": "table"}])})
        self._ask(partial(self.client.set_terminated, run_id, status_of(outcome)))
