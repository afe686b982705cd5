"""Several seeds of one experiment, one after another: which of them have not begun when somebody is cut off."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.experiment.past import RESUMABLE, outcome
from pipeline.tracking.store import Run, Store

_TAG = "ladder.series"


@dataclass(frozen=True)
class Series:
    """What each of its parent runs says, in a tag."""

    key: str
    seeds: tuple[int, ...]

    @classmethod
    def of(cls, seeds: Sequence[int]) -> Series:
        return cls(uuid.uuid4().hex, tuple(seeds))

    @classmethod
    def read(cls, parent: Run) -> Series | None:
        """That to which an experiment belongs; None: it has one seed only."""
        if (text := parent.data.tags.get(_TAG)) is None:
            return None
        said = json.loads(text)
        return cls(said["key"], tuple(said["seeds"]))

    @property
    def tags(self) -> dict[str, str]:
        return {_TAG: json.dumps({"key": self.key, "seeds": self.seeds})} if len(self.seeds) > 1 else {}

    def parents(self, store: Store) -> list[Run]:
        """Its experiments so far, in their order."""
        found = [run for run in store.parents() if (theirs := Series.read(run)) and theirs.key == self.key]
        return sorted(found, key=lambda run: run.info.start_time)

    def to_come(self, store: Store) -> list[int]:
        """The seeds of which no experiment has begun; of a single one, which is no series, none."""
        if not self.tags:
            return []
        begun = {run.data.params.get("training.seed") for run in self.parents(store)}
        return [seed for seed in self.seeds if str(seed) not in begun]


def cut_between_seeds(store: Store) -> Run | None:
    """The newest experiment, if it has ended, and other seeds were to follow."""
    newest = max(store.parents(), key=lambda run: run.info.start_time, default=None)
    if newest is None or newest.info.status == "RUNNING" or outcome(newest) in RESUMABLE:
        return None
    series = Series.read(newest)
    return newest if series is not None and series.to_come(store) else None
