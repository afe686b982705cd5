"""What is asked of the store: runs, metrics and artifacts."""

from __future__ import annotations

import heapq
import itertools
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException

from pipeline.errors import BadInput, InfrastructureFailure
from pipeline.foreign.names import Names
from pipeline.health.history import History
from pipeline.tracking import tags
from pipeline.tracking.address import sqlite_file
from pipeline.tracking.answers import deleted
from pipeline.tracking.artifact_store import NotHad
from pipeline.tracking.connection import Connection
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun, ParentRun, attempts_of, typed

_FEWEST_LETTERS = 4
_SETTLED_NANOSECONDS = 1_000_000_000
_FEW_AT_ONCE = 20
_NOT_THE_SCRIPTS = ("system/", "cost/")
"""Metrics that MLflow and this program log."""
"""Runs of a page of which the first ones may be enough."""


class Reader(Connection):
    """The questions to a store."""

    # Runs

    def experiments(self) -> list[tuple[Experiment, list[LadderRun]]]:
        """Every MLflow experiment with its runs of any kind, newest first."""
        found = {each.experiment_id: (each, list[LadderRun]()) for each in self._all_experiments()}
        for run in self._pages(list(found), f"tags.`{tags.KIND}` LIKE '%'"):
            found[run.experiment_id][1].append(run)
        return sorted((each for each in found.values() if each[1]), key=lambda each: -each[1][0].start_time)

    def newest(self) -> Iterator[tuple[str, ParentRun]]:
        """The experiments and studies with the name of their MLflow experiment, newest first, as they are needed."""
        names = {each.experiment_id: each.name for each in self._all_experiments()}
        found = [
            self._pages(list(names), f"tags.`{tags.KIND}` = '{kind}'", _FEW_AT_ONCE) for kind in ("experiment", "study")
        ]
        for run in heapq.merge(*found, key=lambda each: -each.start_time):
            if isinstance(run, ParentRun):
                yield names[run.experiment_id], run

    def parents(self, among: Sequence[str] | None = None) -> list[ExperimentRun]:
        """The run of every experiment, newest first; `among`: those in MLflow experiments of these ids."""
        ids = self._experiments() if among is None else list(among)
        found = self._search(ids, f"tags.`{tags.KIND}` = 'experiment'")
        return [run for run in found if isinstance(run, ExperimentRun)]

    def newest_parents(self) -> Iterator[ExperimentRun]:
        """The same, as they are needed."""
        for run in self._pages(self._experiments(), f"tags.`{tags.KIND}` = 'experiment'", _FEW_AT_ONCE):
            if isinstance(run, ExperimentRun):
                yield run

    def series(self, word: str) -> list[ExperimentRun]:
        """The experiments in whose tag of the series this word is."""
        filter_string = f"tags.`{tags.KIND}` = 'experiment' and tags.`{tags.SERIES}` LIKE '%{word}%'"
        return [run for run in self._search(self._experiments(), filter_string) if isinstance(run, ExperimentRun)]

    def left_running(self) -> list[LadderRun]:
        """The experiments, studies and trials that have not ended, or have a nested run that has not.

        A run has not ended if it is RUNNING, or if it has no outcome or verdict: another program may set the status of
        any run, as a trainer does that leaves `with mlflow.start_run()`.
        """
        kind, experiments = f"tags.`{tags.KIND}`", self._experiments()
        filters = (
            f"attributes.status = 'RUNNING' and {kind} LIKE '%'",
            f"{kind} = 'experiment' and tags.`{tags.OUTCOME}` IS NULL",
            f"{kind} = 'attempt' and tags.`{tags.VERDICT}` IS NULL",
        )
        found = [run for each in filters for run in self._search(experiments, each)]
        ids = dict.fromkeys(run.parent_id or run.run_id for run in found)
        return [run for run in map(self.run, ids) if run is not None]

    def run(self, run_id: str, *, once: bool = False) -> LadderRun | None:
        """A run, also one that has been deleted; None if there is none of that id."""

        def ask() -> LadderRun | None:
            try:
                return typed(self.client.get_run(run_id))
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

        return self._ask(ask, once=once)

    def check_active(self, run_id: str, *, once: bool = False) -> None:
        """Raises: InfrastructureFailure: the run has been deleted."""
        run = self._ask(partial(self.client.get_run, run_id), once=once)
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise InfrastructureFailure(f"tracking store {self.uri}: {deleted(f'run {run_id}')}")

    def attempts(self, parent: LadderRun) -> list[AttemptRun]:
        """The attempts that are nested in a run, by number."""
        filter_string = f"tags.`{tags.PARENT}` = '{parent.run_id}' and tags.`{tags.KIND}` = 'attempt'"
        return attempts_of(parent, self._search([parent.experiment_id], filter_string))

    def children(self, run_id: str, *, once: bool = False) -> list[LadderRun]:
        """The runs that a trainer has nested in its own, such as one a fold, and those in the RUNNING ones of them.

        MLflow makes them in the experiment that the trainer has set, or in its default one.
        """
        experiments = self._experiments(once=once)
        found: dict[str, LadderRun] = {}
        todo = [run_id]
        while todo:
            nested = self._search(experiments, f"tags.`{tags.PARENT}` = '{todo.pop()}'", once=once)
            new = [each for each in nested if each.kind is None and each.run_id not in found]
            found |= {each.run_id: each for each in new}
            todo += [each.run_id for each in new if each.is_running]
        return list(found.values())

    def find(self, word: str) -> LadderRun:
        """The run with this id, or the only one whose id begins so (four letters at least). Raises BadInput."""
        fit = self.begin_so(word)
        if len(fit) == 1:
            return fit[0]
        problem = "several runs begin so" if fit else f"no such run in {self.uri}"
        known = [run.run_id for run in itertools.islice(self.newest_parents(), 5)]
        raise BadInput(f"{word}: {problem}; experiments, newest first: {', '.join(known) or 'none'}")

    def begin_so(self, word: str) -> list[LadderRun]:
        """The run with this id; else those whose ids begin so (four letters at least), a few at most."""
        if re.fullmatch(r"[\w-]+", word) is None:
            return []
        if (exact := self.run(word)) is not None:
            return [exact] if exact.kind is not None and not exact.is_deleted else []
        if len(word) < _FEWEST_LETTERS:
            return []
        filter_string = f"attributes.run_id LIKE '{word}%' and tags.`{tags.KIND}` LIKE '%'"
        found = itertools.islice(self._pages(self._experiments(), filter_string, _FEW_AT_ONCE), _FEW_AT_ONCE)
        return [run for run in found if run.run_id.startswith(word)]

    def others_since(self, milliseconds: int) -> list[LadderRun]:
        """The runs of other programs that have been started since then, newest first."""
        found = self._search(self._experiments(), f"attributes.start_time >= {milliseconds}")
        return [run for run in found if run.kind is None]

    # Metrics

    def mark(self) -> tuple[tuple[int, int], ...] | None:
        """What changes whenever anything is written to an SQLite file; None: only a question tells what is new.

        The clock of a file system is coarse, so a file that was written to within the last second has no mark.
        """
        file = sqlite_file(self.uri)
        if file is None:
            return None
        marks, now = [], time.time_ns()
        for each in (file, Path(f"{file}-wal"), Path(f"{file}-journal")):
            try:
                status = each.stat()
            except FileNotFoundError:
                continue
            except OSError:
                return None
            if now - status.st_mtime_ns < _SETTLED_NANOSECONDS:
                return None
            marks.append((status.st_size, status.st_mtime_ns))
        return tuple(marks) or None

    def latest(self, run_id: str, *, once: bool = False) -> dict[str, tuple[int, float, int]]:
        """Newest (step, value, time) of every metric, in one call whose cost does not grow with the run."""
        run = self._ask(partial(self.client.get_run, run_id), once=once)
        found = {metric.key: (metric.step, metric.value, metric.timestamp) for metric in run.data._metric_objs}
        return typed(run).names.latest(found)

    def unmet_names(self, run_id: str, *, once: bool = False) -> tuple[dict[str, str], list[str]]:
        """The names that were given to metrics which are not logged, with these, and all metrics of the script's."""
        run = self._ask(partial(self.client.get_run, run_id), once=once)
        logged = sorted(each for each in run.data.metrics if not each.startswith(_NOT_THE_SCRIPTS))
        return typed(run).names.unmet(logged), logged

    def history(self, run_id: str, metrics: Iterable[str], *, once: bool = False) -> History:
        """Complete histories of some metrics. One that was logged without steps has its times (ms) for steps."""
        ask, metrics, names = partial(self._ask, once=once), list(metrics), self._names(run_id, once=once)
        points = {name: ask(partial(self.client.get_metric_history, run_id, name)) for name in names.needed(metrics)}
        series = {
            name: [(each.step if stepped else each.timestamp, each.timestamp, each.value) for each in found]
            for name, found in points.items()
            for stepped in [any(each.step for each in found)]
        }
        return History(names.series(metrics, series), names.aliases(series))

    def points(
        self, run_id: str, metrics: Iterable[str], *, once: bool = False
    ) -> dict[str, list[tuple[int, int, float]]]:
        """Complete histories as (step, time in ms, value), as logged; without the metrics that have none."""
        metrics, names, ask = list(metrics), self._names(run_id, once=once), partial(self._ask, once=once)
        found = {name: ask(partial(self.client.get_metric_history, run_id, name)) for name in names.needed(metrics)}
        series = {name: [(each.step, each.timestamp, each.value) for each in found[name]] for name in found}
        return {name: list(points) for name, points in names.series(metrics, series).items() if points}

    def behind(self, run_id: str, metrics: Iterable[str], *, once: bool = False) -> list[str]:
        """The metrics that the script logs, of those that are asked for by these names, in their order."""
        return self._names(run_id, once=once).needed(metrics)

    def own_name(self, run_id: str, metric: str) -> str:
        """The name by which the script logs a metric that `trainer.names` calls so; else the name itself."""
        source = self._names(run_id).sources.get(metric)
        return metric if source is None or source.metric is None else source.metric

    def _names(self, run_id: str, *, once: bool = False) -> Names:
        """What a script's metrics are called. A run has the tag from its first moment, so it is asked for once."""
        if run_id not in self._known_names:
            run = self._ask(partial(self.client.get_run, run_id), once=once)
            self._known_names[run_id] = typed(run).names
        return self._known_names[run_id]

    # Artifacts

    def artifact(self, run_id: str, path: str) -> bytes | None:
        """The content of an artifact, or None if there is none of that path, or it cannot be had."""

        def download() -> bytes | None:
            folder = path.rpartition("/")[0]
            if path not in [each.path for each in self.client.list_artifacts(run_id, folder or None)]:
                return None
            with TemporaryDirectory() as here:
                return Path(self.client.download_artifacts(run_id, path, here)).read_bytes()

        run = self._ask(partial(self.client.get_run, run_id))
        try:
            return self._transfer(run, download, reads=True)
        except NotHad:
            return None

    def read_text(self, run_id: str, name: str) -> str | None:
        """A text artifact, or None if there is none of that name, or it cannot be had."""
        content = self.artifact(run_id, name)
        return None if content is None else content.decode()
