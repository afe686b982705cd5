"""What is asked of the store: runs, metrics and artifacts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException

from pipeline.errors import BadInput
from pipeline.foreign.names import Names
from pipeline.health.history import History
from pipeline.tracking import tags
from pipeline.tracking.connection import Connection
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun, attempts_of, typed


class Reader(Connection):
    """The questions to a store."""

    # Runs

    def experiments(self) -> list[tuple[Experiment, list[LadderRun]]]:
        """Every MLflow experiment with its runs of any kind, newest first."""
        found = []
        for experiment in self._ask(partial(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY)):
            runs = self._search([experiment.experiment_id], f"tags.`{tags.KIND}` LIKE '%'")
            if runs:
                found.append((experiment, runs))
        return sorted(found, key=lambda each: each[1][0].start_time, reverse=True)

    def parents(self) -> list[ExperimentRun]:
        """The run of every experiment, newest first."""
        found = self._search(self._experiments(), f"tags.`{tags.KIND}` = 'experiment'")
        return [run for run in found if isinstance(run, ExperimentRun)]

    def left_running(self) -> list[LadderRun]:
        """The experiments, studies and trials that are RUNNING, or have a nested run that is."""
        running = self._search(self._experiments(), f"attributes.status = 'RUNNING' and tags.`{tags.KIND}` LIKE '%'")
        ids = dict.fromkeys(run.parent_id or run.run_id for run in running)
        return [run for run in map(self.run, ids) if run is not None]

    def run(self, run_id: str) -> LadderRun | None:
        """A run, or None if there is none of that id."""

        def ask() -> LadderRun | None:
            try:
                return typed(self.client.get_run(run_id))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

        return self._ask(ask)

    def attempts(self, parent: LadderRun) -> list[AttemptRun]:
        """The attempts that are nested in a run, by number."""
        filter_string = f"tags.`{tags.PARENT}` = '{parent.run_id}' and tags.`{tags.KIND}` = 'attempt'"
        return attempts_of(parent, self._search([parent.experiment_id], filter_string))

    def find(self, word: str) -> LadderRun:
        """The run with this id, or the only one whose id begins so (four letters at least). Raises BadInput."""
        runs = {run.run_id: run for _, each in self.experiments() for run in each}
        fit = [run_id for run_id in runs if run_id == word or (len(word) >= 4 and run_id.startswith(word))]
        if len(fit) != 1:
            known = [run_id for run_id, run in runs.items() if isinstance(run, ExperimentRun)]
            problem = f"{len(fit)} runs begin so" if fit else f"no such run in {self.uri}"
            raise BadInput(f"{word}: {problem}; experiments, newest first: {', '.join(known[:5]) or 'none'}")
        return runs[fit[0]]

    def others_since(self, milliseconds: int) -> list[LadderRun]:
        """The runs of other programs that have been started since then, newest first."""
        found = self._search(self._experiments(), f"attributes.start_time >= {milliseconds}")
        return [run for run in found if run.kind is None]

    # Metrics

    def latest(self, run_id: str, *, once: bool = False) -> dict[str, tuple[int, float, int]]:
        """Newest (step, value, time) of every metric, in one call whose cost does not grow with the run."""
        run = self._ask(partial(self.client.get_run, run_id), once=once)
        found = {metric.key: (metric.step, metric.value, metric.timestamp) for metric in run.data._metric_objs}
        return typed(run).names.latest(found)

    def history(self, run_id: str, metrics: Iterable[str], *, once: bool = False) -> History:
        """Complete histories of some metrics. One that was logged without steps has its times (ms) for steps."""
        ask, metrics, names = partial(self._ask, once=once), list(metrics), self._names(run_id, once=once)
        points = {name: ask(partial(self.client.get_metric_history, run_id, name)) for name in names.needed(metrics)}
        series = {
            name: [(each.step if any(one.step for one in found) else each.timestamp, each.value) for each in found]
            for name, found in points.items()
        }
        return History(names.series(metrics, series))

    def points(self, run_id: str, metrics: Iterable[str]) -> dict[str, list[tuple[int, int, float]]]:
        """Complete histories as (step, time in ms, value), as logged; without the metrics that have none."""
        metrics, names = list(metrics), self._names(run_id)
        found = {
            name: self._ask(partial(self.client.get_metric_history, run_id, name)) for name in names.needed(metrics)
        }
        series = {name: [(each.step, each.timestamp, each.value) for each in found[name]] for name in found}
        return {name: list(points) for name, points in names.series(metrics, series).items() if points}

    def _names(self, run_id: str, *, once: bool = False) -> Names:
        """What a script's metrics are called. A run has the tag from its first moment, so it is asked for once."""
        if run_id not in self._known_names:
            run = self._ask(partial(self.client.get_run, run_id), once=once)
            self._known_names[run_id] = typed(run).names
        return self._known_names[run_id]

    # Artifacts

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """The content of an artifact, or None if there is none of that path, or it cannot be had."""
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
