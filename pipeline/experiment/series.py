"""Several seeds of one experiment, one after another, and which of them have not begun."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.experiment.past import is_unfinished
from pipeline.tracking import tags
from pipeline.tracking.runs import ExperimentRun
from pipeline.tracking.store import Store


@dataclass(frozen=True)
class Series:
    """The experiments that one `ladder run` was asked for. Each of their parent runs has key and seeds in a tag."""

    key: str
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, seeds: Sequence[int]) -> Series:
        return cls(uuid.uuid4().hex, tuple(seeds))

    @classmethod
    def read(cls, parent: ExperimentRun) -> Series | None:
        """The series that an experiment belongs to; None: its one seed was all."""
        if (text := parent.series) is None:
            return None
        said = json.loads(text)
        return cls(said["key"], tuple(said["seeds"]))

    @property
    def tags(self) -> dict[str, str]:
        """The tag of each of its parent runs. A single seed has none."""
        return {tags.SERIES: json.dumps({"key": self.key, "seeds": self.seeds})} if len(self.seeds) > 1 else {}

    def parents(self, store: Store) -> list[ExperimentRun]:
        """Its experiments that have begun, oldest first."""
        found = [run for run in store.series(self.key) if (theirs := Series.read(run)) and theirs.key == self.key]
        return sorted(found, key=lambda run: run.start_time)

    def to_come(self, store: Store) -> list[int]:
        """The seeds whose experiment has not begun. A single seed is no series, and has none to come."""
        if not self.tags:
            return []
        begun = {run.seed for run in self.parents(store)}
        return [seed for seed in self.seeds if seed not in begun]


def cut_between_seeds(store: Store) -> ExperimentRun | None:
    """The newest experiment, if it has ended and other seeds were to follow; else None."""
    newest = next(store.newest_parents(), None)
    if newest is None or is_unfinished(newest):
        return None
    series = Series.read(newest)
    return newest if series is not None and series.to_come(store) else None
