"""Runs of the store as this program knows them: typed views of MLflow's, in which each tag is read in one place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlflow.entities import Run

from pipeline.attempt.record import label_of
from pipeline.foreign.names import Names
from pipeline.health.names import is_of_training
from pipeline.health.readings import used
from pipeline.health.verdict import Evidence, Verdict
from pipeline.processes.owner import Owner
from pipeline.tracking import tags
from pipeline.tracking.serialise import from_parts

FROM_SCRATCH = "scratch"
"""What the tag of the warm start says where there is none."""


@dataclass(frozen=True, eq=False)
class LadderRun:
    """A run of any kind, also one of another program."""

    entity: Run
    """As MLflow gave it: what the store said at that moment."""

    @property
    def run_id(self) -> str:
        return str(self.entity.info.run_id)

    @property
    def experiment_id(self) -> str:
        return str(self.entity.info.experiment_id)

    @property
    def name(self) -> str:
        return str(self.entity.info.run_name)

    @property
    def status(self) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return str(self.entity.info.status)

    @property
    def is_running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def is_deleted(self) -> bool:
        """Whether a person has deleted it; it can be restored."""
        return str(self.entity.info.lifecycle_stage) == "deleted"

    @property
    def start_time(self) -> int:
        """Milliseconds since 1970."""
        return int(self.entity.info.start_time)

    @property
    def end_time(self) -> int | None:
        """Milliseconds since 1970; None while it is RUNNING."""
        return self.entity.info.end_time

    @property
    def metrics(self) -> Mapping[str, float]:
        """Newest value of each metric, also by the names of `trainer.names`.

        Without those that cannot be used: see :mod:`pipeline.health.readings`.
        """
        return used(self._translated)

    @property
    def logged(self) -> frozenset[str]:
        """The names of all metrics, whatever their values."""
        return frozenset(self._translated)

    @property
    def _translated(self) -> dict[str, float]:
        """Newest value of every metric, under the script's own name and under that of `trainer.names`."""
        data = self.entity.data
        if not self.names.sources:
            return data.metrics
        found = {each.key: (each.step, each.value, each.timestamp) for each in data._metric_objs}
        return {name: value for name, (_, value, _) in self.names.latest(found).items()}

    @property
    def newest(self) -> Mapping[str, float]:
        """Newest value of each metric under the name that it was logged by, whatever the value is."""
        return dict(self.entity.data.metrics)

    @property
    def last_step(self) -> int:
        """The highest step of the training's own metrics; 0 where there is none."""
        own = [each.step for each in self.entity.data._metric_objs if is_of_training(each.key)]
        return max([0, *own])

    @property
    def names(self) -> Names:
        """What a script's metrics are called here."""
        return Names.read(self._tag(tags.NAMES))

    @property
    def said_last(self) -> tuple[tuple[str, int, int], ...]:
        """The name, step and time of each metric's newest value."""
        return tuple(sorted((each.key, each.step, each.timestamp) for each in self.entity.data._metric_objs))

    @property
    def params(self) -> Mapping[str, str]:
        """The configuration: dotted key → value as text."""
        return self.entity.data.params

    @property
    def is_of_a_script(self) -> bool:
        """Whether its trainer is a command of the user's own."""
        return self.params.get("trainer.command", "None") != "None"

    @property
    def seed(self) -> int | None:
        """`training.seed`; None: the run was cut off before its configuration was written."""
        with contextlib.suppress(ValueError):
            return int(self.params.get("training.seed", ""))
        return None

    @property
    def kind(self) -> str | None:
        """experiment, attempt, study, trial, validation; None: another program's."""
        return self._tag(tags.KIND)

    @property
    def parent_id(self) -> str | None:
        """Run id of the run that this one is nested in."""
        return self._tag(tags.PARENT)

    @property
    def note(self) -> str:
        return self._tag(tags.NOTE) or ""

    def _tag(self, name: str) -> str | None:
        return self.entity.data.tags.get(name)

    def _whole(self, name: str) -> str | None:
        """A tag that may be in several parts."""
        return from_parts(name, self.entity.data.tags)


class ParentRun(LadderRun):
    """A run that a process owns, and that others are nested in: an experiment or a study."""

    @property
    def outcome(self) -> str | None:
        """How it ended; None: it has not."""
        return self._tag(tags.OUTCOME)

    @property
    def is_open(self) -> bool:
        """Whether nothing has said yet how it ended, whatever its status is."""
        return self.is_running or self.outcome is None

    @property
    def owner(self) -> Owner | None:
        """The process that runs it, or ran it last."""
        return Owner.read(self._tag(tags.OWNER) or "")

    @property
    def began_in(self) -> str:
        """Where it began: :class:`pipeline.experiment.place.Place` as JSON."""
        return self._whole(tags.PLACE) or ""

    @property
    def last_sign(self) -> datetime | None:
        """When its owner gave the last sign of life."""
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(self._tag(tags.ALIVE) or "")
        return None

    @property
    def seconds(self) -> float:
        """Seconds that it has taken, as of the last sign of life."""
        with contextlib.suppress(ValueError):
            return float(self._tag(tags.SECONDS) or 0.0)
        return 0.0


class ExperimentRun(ParentRun):
    """The run of a whole experiment. Its attempts are nested in it."""

    @property
    def experiment_name(self) -> str:
        return self.params.get("experiment.name", self.experiment_id)

    @property
    def reason(self) -> str:
        """Why it ended so, as the first line of its note says; empty: it does not."""
        return self.note.partition("\n")[0].partition("** – ")[2]

    @property
    def settled_rung(self) -> str | None:
        """Where the ladder ended healthy."""
        return self._tag(tags.SETTLED_RUNG)

    @property
    def settled_run(self) -> str | None:
        """Run id of the attempt that ended healthy."""
        return self._tag(tags.SETTLED_RUN)

    @property
    def settings(self) -> str:
        """The configuration as JSON, without what is default. It is there before the artifact that says all of it."""
        return self._whole(tags.SETTINGS) or ""

    @property
    def series(self) -> str | None:
        """The series that it belongs to: :class:`pipeline.experiment.series.Series` as JSON."""
        return self._whole(tags.SERIES)


class StudyRun(ParentRun):
    """The run of a whole study. Its trials are nested in it."""

    @property
    def is_open(self) -> bool:
        return self.is_running


class TrialRun(LadderRun):
    """The run of a trial. The attempts of all its seeds are nested in it."""

    @property
    def study_name(self) -> str | None:
        """Optuna's name of the study; that of a validation differs from its parent's."""
        return self._tag(tags.STUDY)

    @property
    def number(self) -> int | None:
        """Optuna's number of the trial."""
        with contextlib.suppress(ValueError):
            return int(self._tag(tags.TRIAL) or "")
        return None


@dataclass(frozen=True)
class Source:
    """The checkpoint from which an attempt started, as far as its run tells."""

    run_id: str
    episode: int


@dataclass(frozen=True)
class PlaceOfJob:
    """What a trainer waits for, or where it is at work."""

    said: str
    """Such as `queued, slurm job 7 (Priority)`, or `at work on n3, slurm job 7`."""
    waits: bool
    since: datetime


class AttemptRun(LadderRun):
    """The run of one attempt."""

    @property
    def rung(self) -> str:
        return self._own(tags.RUNG)

    @property
    def remedy(self) -> str | None:
        """The remedy that was tried on the rung."""
        return self._tag(tags.REMEDY)

    @property
    def label(self) -> str:
        """Rung and remedy."""
        return label_of(self.rung, self.remedy)

    @property
    def number(self) -> int:
        """From 0, within its experiment."""
        return int(self._own(tags.NUMBER))

    @property
    def reason(self) -> str:
        """Why the ladder chose this rung."""
        return self._tag(tags.REASON) or ""

    @property
    def diff(self) -> dict[str, list[Any]]:
        """What the rung changed: dotted key → [value of the experiment, value of this attempt]."""
        found = self._json(tags.DIFF)
        return found if isinstance(found, dict) else {}

    @property
    def warm_start(self) -> Source | None:
        """None: from scratch."""
        found = self._json(tags.WARM_START)
        with contextlib.suppress(TypeError):
            return Source(**found)
        return None

    @property
    def is_open(self) -> bool:
        """Whether nothing has said yet how it ended, whatever its status is."""
        return self.is_running or self.verdict_name is None

    @property
    def place(self) -> PlaceOfJob | None:
        """What its trainer waits for, or where it is at work; None: it is where its orchestrator is."""
        found = self._json(tags.PLACE_OF_JOB)
        with contextlib.suppress(TypeError, ValueError, KeyError):
            since = datetime.fromisoformat(found["since"])
            return PlaceOfJob(str(found["said"]), bool(found["waits"]), since)
        return None

    @property
    def counts(self) -> str:
        """What the number of a checkpoint counts: episodes, or a script's steps."""
        return "step" if "trainer.checkpoints.pattern" in self.params else "episode"

    @property
    def verdict_name(self) -> str | None:
        """None: it has no verdict yet."""
        return self._tag(tags.VERDICT)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict with its evidence; None: it has none yet. Raises ValueError where it cannot be understood."""
        if self.verdict_name is None:
            return None
        evidence = json.loads(self._tag(tags.EVIDENCE) or "[]")
        return Verdict.model_validate({"name": self.verdict_name, "evidence": evidence})

    @property
    def warnings(self) -> tuple[Evidence, ...]:
        """The rules that warned, without the values that they saw."""
        found = self._json(tags.WARNINGS)
        with contextlib.suppress(ValueError, TypeError):
            return tuple(Evidence.model_validate(each) for each in found)
        return ()

    @property
    def quality(self) -> str:
        """Whether its policy is better than random play: a value of the tag `ladder.quality`."""
        return self._tag(tags.QUALITY) or "unknown"

    @property
    def command(self) -> str | None:
        """The command of a trainer of the user's own, as one would type it."""
        return self._tag(tags.COMMAND)

    @property
    def not_stored(self) -> tuple[str, ...]:
        """A line for each thing that the store has not taken: its name, and why."""
        return tuple((self._tag(tags.NOT_STORED) or "").splitlines())

    @property
    def policy(self) -> str | None:
        """Path of the newest checkpoint, if the attempt is healthy."""
        return self._tag(tags.POLICY)

    @property
    def model(self) -> str | None:
        """URI for `mlflow.pytorch.load_model`."""
        return self._tag(tags.MODEL)

    def _json(self, name: str) -> Any:
        """What a tag says as JSON; None: it is not there, or is no JSON."""
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(self._tag(name) or "")
        return None

    def _own(self, name: str) -> str:
        """A tag that every attempt has from its first moment, see :func:`typed`."""
        return str(self.entity.data.tags[name])


_KINDS: dict[str | None, type[LadderRun]] = {
    "experiment": ExperimentRun,
    "attempt": AttemptRun,
    "study": StudyRun,
    "trial": TrialRun,
    "validation": TrialRun,
}


def typed(entity: Run) -> LadderRun:
    """The view of a run that its kind asks for. A run that only claims to be an attempt is one of another program's."""
    said = entity.data.tags
    kind = _KINDS.get(said.get(tags.KIND), LadderRun)
    if kind is AttemptRun and not (said.get(tags.NUMBER, "").isdecimal() and said.get(tags.RUNG)):
        return LadderRun(entity)
    return kind(entity)


def attempts_of(parent: LadderRun, runs: Iterable[LadderRun]) -> list[AttemptRun]:
    """The attempts among some runs that are nested in this one, by number."""
    nested = [run for run in runs if isinstance(run, AttemptRun) and run.parent_id == parent.run_id]
    return sorted(nested, key=lambda run: run.number)
