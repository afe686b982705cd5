"""The metrics of an attempt on its own disk, before they are in the store.

    metrics.jsonl       one line a report: {"time": ms, "step": n, "metrics": {name: value}}; a value may be NaN,
                        Infinity or -Infinity, as Python's json writes them, or null: NaN
    metrics.delivered   how many bytes of it the store has

A trainer writes a line and continues: it neither waits for the store nor loads MLflow. The orchestrator delivers the
lines that the store does not have, in order, at each of its polls. After an interruption the next orchestrator does. A
line may be delivered twice, which changes nothing: to the store the same value at the same step and time is one point.

A trainer of the user's own may write such lines too, in any language (docs/your-own.md). A line that is no report is
passed over and told of, and those after it are delivered.
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
from typing import Annotated, BinaryIO, NamedTuple

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder

LONGEST_LINE = 16 * 2**20
"""Bytes; some hundred thousand metrics."""
_TOLD = 3
"""Lines that are passed over of which the user is told one by one."""


@dataclass(frozen=True)
class Report:
    """One line: the metrics of one update."""

    time: Annotated[int, Field(ge=0, lt=253_402_300_800_000)]
    """Milliseconds since 1970, up to the year 9999."""
    step: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    """Environment steps."""
    metrics: dict[str, Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]]


_REPORT = TypeAdapter(Report)


class _Line(NamedTuple):
    """A line of the file, whole or not."""

    start: int
    end: int
    whole: bool
    """Whether a line end has been written."""
    text: bytes | None
    """None: longer than a line may be."""


class Spool:
    """The two files of an attempt's folder. One process writes, one delivers."""

    def __init__(self, folder: Path) -> None:
        where = AttemptFolder(folder)
        self.path, self._mark = where.metrics, where.delivered
        self._delivered = self._marked()
        self._passed_over: dict[int, str] = {}
        """Where a bad line starts → what is wrong with it."""
        self._told = 0
        self._unreadable: str | None = None
        self._said_unreadable = False

    @property
    def delivered(self) -> int:
        """The position up to which the store has everything."""
        return self._delivered

    def pending(self, count: int = 20, *, ended: bool = False) -> tuple[list[Report], int]:
        """The oldest reports that the store does not have, and the position to `mark` when it has them.

        So many at most: MLflow takes a thousand metrics at once, and a report has some fifty.

        Args:
            ended: nothing more will be written, so a last line without its end is read too.
        """
        return self.read(self._delivered, count, ended=ended)

    def news(self) -> list[str]:
        """What was passed over since the last call: a sentence for each of the first lines, one for the others."""
        found = [
            f"passed over: line {self._number(start)}: {why}"
            for start, why in list(self._passed_over.items())[: self._room]
        ]
        if more := len(self._passed_over) - len(found):
            found += [f"passed over: {more} more lines"] if self._told <= _TOLD else []
        self._told += len(self._passed_over)
        self._passed_over = {}
        if self._unreadable is not None and not self._said_unreadable:
            self._said_unreadable = True
            found.append(f"cannot be read: {self._unreadable}")
        return [f"{self.path.name}: {each}" for each in found]

    @property
    def _room(self) -> int:
        return max(0, _TOLD - self._told)

    def _number(self, start: int) -> int:
        """The number of the line that starts at a position, from 1."""
        number, left = 1, start
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            while left > 0 and (part := file.read(min(left, 2**20))):
                number, left = number + part.count(b"\n"), left - len(part)
        return number

    def mark(self, position: int) -> None:
        """Notes that the store has everything up to this position."""
        self._delivered = position
        with contextlib.suppress(OSError):  # a full disk: some lines may be delivered twice
            write_atomically(self._mark, str(position))

    def remove(self) -> None:
        """Removes both files: the store has everything, and nothing will be added."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self._mark.unlink(missing_ok=True)

    def _marked(self) -> int:
        try:
            return int(self._mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # never delivered, or cut off by a power cut: once more does no harm
            return 0

    def read(self, position: int, count: int | None = None, *, ended: bool = False) -> tuple[list[Report], int]:
        """The reports from a position (in bytes) on, so many at most, and where the last whole line of them ends.

        `ended`: as in `pending`. Such a line ends nowhere, so it is read again by the next call.
        """
        reports: list[Report] = []
        try:
            with self.path.open("rb") as file:
                file.seek(position)
                while len(reports) != count and (line := _next_line(file)) is not None:
                    if not line.whole and not ended:
                        break
                    try:
                        if (report := _report(line)) is not None:
                            reports.append(report)
                    except ValueError as error:
                        self._passed_over[line.start] = str(error)
                    if not line.whole:
                        break
                    position = line.end
        except FileNotFoundError:
            pass
        except OSError as error:
            self._unreadable = error.strerror
        return reports, position


def _next_line(file: BinaryIO) -> _Line | None:
    """The next line; None: there is no further byte."""
    start = file.tell()
    text = file.readline(LONGEST_LINE)
    whole, short = text.endswith(b"\n"), len(text) < LONGEST_LINE
    while not whole and (part := file.readline(LONGEST_LINE)):
        whole, short = part.endswith(b"\n"), False
    return _Line(start, file.tell(), whole, text if short or whole else None) if text else None


def _report(line: _Line) -> Report | None:
    """What a line reports; None: it is blank. Raises ValueError, in one line: it is no report."""
    if line.text is None:
        raise ValueError(f"longer than {LONGEST_LINE // 2**20} MiB")
    if not line.text.strip():
        return None
    try:
        return _REPORT.validate_json(line.text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error


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
