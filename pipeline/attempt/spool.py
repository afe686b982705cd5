"""The metrics of an attempt on its own disk, before they are in the store.

    metrics.jsonl       one line a report: {"time": ms, "step": n, "metrics": {name: value}}; a value may be NaN,
                        Infinity or -Infinity, as Python's json writes them, or null: NaN
    metrics.delivered   how many bytes of it the store has

A trainer writes a line and continues: it neither waits for the store nor loads MLflow. The orchestrator delivers the
lines that the store does not have, in order, at each of its polls. After an interruption the next orchestrator does. A
line may be delivered twice, which changes nothing: to the store the same value at the same step and time is one point.

A trainer of the user's own may write such lines too, in any language (docs/your-own.md). A line that is no report is
passed over as soon as one that is follows it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder


@dataclass(frozen=True)
class Report:
    """One line: the metrics of one update."""

    time: int
    """Milliseconds since 1970."""
    step: int
    """Environment steps."""
    metrics: dict[str, Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]]


_REPORT = TypeAdapter(Report)


class Spool:
    """The two files of an attempt's folder. One process writes, one delivers."""

    def __init__(self, folder: Path) -> None:
        where = AttemptFolder(folder)
        self.path, self._mark = where.metrics, where.delivered
        self._delivered = self._marked()

    def pending(self, count: int = 20) -> tuple[list[Report], int]:
        """The oldest reports that the store does not have, and the position to `mark` when it has them.

        So many at most: MLflow takes a thousand metrics at once, and a report has some fifty.
        """
        return self.read(self._delivered, count)

    def mark(self, position: int) -> None:
        """Notes that the store has everything up to this position."""
        self._delivered = position
        with contextlib.suppress(OSError):  # a full disk: some lines may be delivered twice
            write_atomically(self._mark, str(position))

    def remove(self) -> None:
        """Removes both files: the store has everything, and nothing will be added."""
        self.path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _marked(self) -> int:
        try:
            return int(self._mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # never delivered, or cut off by a power cut: once more does no harm
            return 0

    def read(self, position: int, count: int | None = None) -> tuple[list[Report], int]:
        """The reports from a position (in bytes) on, so many at most, and where the last whole one of them ends."""
        reports: list[Report] = []
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(position)
            end = position
            while len(reports) != count and (line := file.readline()).endswith(b"\n"):
                end += len(line)
                with contextlib.suppress(ValueError):
                    reports.append(_REPORT.validate_json(line))
                    position = end
        return reports, position


class SpoolWriter:
    """The trainer's end of a spool.

    An attempt that is continued repeats the updates between its last checkpoint and its end, bit for bit. They have
    been reported, so they are not reported again: neither what stands in the spool nor what the store has, up to
    `reported_step`.
    """

    def __init__(self, spool: Spool, reported_step: int | None = None) -> None:
        spool.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = spool.path.open("ab", buffering=0)  # what could not be written is not kept to be tried again
        reports, self._end = spool.read(0)
        self._file.truncate(self._end)  # half a line, if the power failed while it was written
        spooled = max((each.step for each in reports), default=None)
        self._names = {name for each in reports for name in each.metrics}
        self._last_step = max((each for each in (reported_step, spooled) if each is not None), default=None)

    def write(self, metrics: Mapping[str, float], step: int) -> bool:
        """Adds a report, and returns when it is on the disk; False if this step has been reported already.

        Values that are not finite are left out (MLflow's run page fails on NaN) and counted instead.

        Raises:
            OSError: the disk is full; the reports before are untouched.
        """
        if self._last_step is not None and step <= self._last_step:
            self.sign_of_life()
            return False
        self._add(metrics, step)
        self._last_step = step
        return True

    def write_late(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds metrics of a step of which, or after which, others have been reported already.

        What an earlier process has reported under the same names stands, and is not reported again.

        Raises:
            OSError: as above.
        """
        if not self._names.issuperset(metrics):
            self._add(metrics, step)

    def _add(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        line = json.dumps({"time": now, "step": step, "metrics": finite(metrics)}).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def sign_of_life(self) -> None:
        """Shows the watchdog that the trainer is at work although it has nothing to report."""
        os.utime(self._file.fileno())


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without the values that are not finite; `nonfinite_metrics` says how many those were."""
    kept = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    if len(kept) < len(metrics):
        kept["nonfinite_metrics"] = float(len(metrics) - len(kept))
    return kept
