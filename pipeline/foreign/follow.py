"""Follows the metrics that a script writes to files of its own, and reports them in the attempt's spool."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.remarks import remark
from pipeline.config import ExperimentConfig, MetricsSource
from pipeline.foreign.event_files import EventTail
from pipeline.foreign.files import Finder, Mark, Place, before_it_began, mark_of, places
from pipeline.foreign.row import Row, Tail, metric_name
from pipeline.foreign.tables import CsvTail, JsonTail
from pipeline.foreign.unread import Kind
from pipeline.foreign.whose import belongs_to_another

_USUAL = {
    "tensorboard": ("**/events.out.tfevents.*", ["**/events.out.tfevents.*"]),
    "csv": (
        "**/*.csv",
        ["**/progress.csv", "**/*monitor.csv", "**/metrics.csv", "**/log.csv", "**/logs.csv", "**/results.csv"],
    ),
    "jsonl": ("**/*.jsonl", ["**/metrics.jsonl", "**/log.jsonl", "**/logs.jsonl", "**/progress.json"]),
}
"""Kind → the files of an attempt's folder, and those with the usual names of the folder in which a script runs."""
SUBJECT = "trainer.metrics"
"""What the sentences about the files are about."""
_SHARE_OF_LOOKING = 0.05
"""How much of the time may go into looking for new files."""
_BEFORE = ".metrics-before.json"
"""In the attempt's folder: the files that were there before the script began."""


def _key(step: int | None, metrics: Mapping[str, float]) -> str:
    return json.dumps([step, metrics], sort_keys=True)


def _reported(spool: Path) -> Counter[str]:
    """What the lines of a spool say, whatever their times."""
    found = Counter[str]()
    with contextlib.suppress(OSError), spool.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                found[_key(said["step"], said["metrics"])] += 1
    return found


def others(kind: str, folder: AttemptFolder, working: Path, root: Path, since: float) -> dict[str, Path]:
    """Kind → a file of that kind which has been written since then, of the kinds that are not followed.

    Only files with the usual names count.
    """
    found = {}
    for other, (_, usual) in _USUAL.items():
        where = places(folder.path, working, None, usual[0], usual)
        marks = Finder(where, [root, folder.metrics]).before
        written = [path for path, mark in marks.items() if mark.modified >= since * 1e9]
        if other != kind and written:
            found[other] = written[0]
    return found


class Follower:
    """Reads what is new in a script's files at each poll. It is made before the script is started.

    Args:
        source: which files.
        folder: the attempt's.
        working: the folder in which the script runs.
        root: the tracking root, in which other attempts write.
    """

    def __init__(
        self, source: MetricsSource, folder: AttemptFolder, working: Path, root: Path, *, begun: bool = False
    ) -> None:
        self._source, self._folder = source, folder
        everything, usual = _USUAL[source.kind]
        where = places(folder.path, working, source.path, everything, usual)
        ignored = [folder.metrics, folder.checkpoints]
        outside = [place for place in where if place.folder != folder.path]
        self._finders = [
            Finder([Place(each.folder, each.patterns) for each in where if each not in outside], ignored),
            Finder(outside, [root]),
        ]
        self._since = before_it_began(self._finders, folder.path / _BEFORE, begun=begun)
        self._reported = _reported(folder.metrics) if begun else Counter[str]()
        """What is in the spool already: it is read once more, and passed over."""
        self._tails: dict[Path, tuple[Tail, Mark | None]] = {}
        self._owners: dict[str, str] = {}
        self._refused: set[Path] = set()
        self._look_again = 0.0
        self._problems: dict[str, bool] = {}
        self._told: set[tuple[Path, Kind]] = set()
        self._last = 0
        self._unwritten: list[bytes] = []

    @staticmethod
    def of(
        config: ExperimentConfig, folder: AttemptFolder, working: Path, root: Path, *, begun: bool = False
    ) -> Follower | None:
        """The follower of an attempt; None: its trainer says its metrics itself."""
        source = config.trainer.metrics
        if config.trainer.command is None or source.kind == "mlflow":
            return None
        return Follower(source, folder, working, root, begun=begun)

    def poll(self, *, to_the_end: bool = False) -> None:
        """Reports what is new; `to_the_end`: all of it, as the script has ended."""
        self._look(now=to_the_end)
        for path, (tail, seen) in list(self._tails.items()):
            mark = mark_of(path)
            if mark is None or (mark == seen and not to_the_end):
                continue
            before = len(self._unwritten)
            # The rows of one look have one time, and those of two files never the same: it tells their order.
            self._last = now = max(int(time.time() * 1000), self._last + 1)
            try:
                rows = tail.read(to_the_end=to_the_end)
                self._unwritten += (line for row in rows if (line := self._line(tail, row, now)) is not None)
            except OSError as error:
                self._problems.setdefault(f"{path}: {error}", False)
                continue
            if tail.problem is not None:
                self._problems.setdefault(tail.problem, False)
            self._note_unread(tail)
            # A look takes so much at most. What it may have left is read at the next one, even if nothing is added.
            self._tails[path] = tail, mark if len(self._unwritten) == before else None
        self._write()
        if to_the_end:
            self._remark()

    def _note_unread(self, tail: Tail) -> None:
        """Takes note of what could not be read in a file, of each kind once: how much it was is told at the end."""
        for kind, sentence in tail.unread.told().items():
            if kind is not Kind.EMPTY and (tail.path, kind) not in self._told:
                self._told.add((tail.path, kind))
                self._problems.setdefault(f"{SUBJECT}: {sentence}", False)
                self._remark()

    def _remark(self) -> None:
        remark(self._folder, SUBJECT, [sentence for tail, _ in self._tails.values() for sentence in tail.remarks()])

    def _write(self) -> None:
        """Adds the lines to the spool, all or none: on a full disk, at a later poll."""
        if not self._unwritten:
            return
        try:
            with self._folder.metrics.open("ab", buffering=0) as spool:
                begin = spool.tell()
                try:
                    text = b"".join(self._unwritten)
                    while text:
                        text = text[spool.write(text) :]
                except OSError:
                    spool.truncate(begin)
                    raise
        except OSError as error:
            self._problems.setdefault(f"{self._folder.metrics}: {error}", False)
            return
        self._unwritten.clear()

    @property
    def files(self) -> list[Path]:
        """The files that are followed so far."""
        return list(self._tails)

    def news(self) -> Iterator[str]:
        """What the user should know of the files, a sentence each, once."""
        for problem, said in self._problems.items():
            if not said:
                self._problems[problem] = True
                yield problem

    def _look(self, *, now: bool) -> None:
        """Looks for new files, so seldom that it costs little even in a folder with very many."""
        began = time.monotonic()
        if began < self._look_again and not now:
            return
        for finder, is_shared in zip(self._finders, (False, True), strict=True):
            for path in finder.found():
                if path in self._tails or path in self._refused:
                    continue
                if is_shared and belongs_to_another(path, self._folder.file):
                    self._refused.add(path)
                    continue
                with contextlib.suppress(OSError):
                    self._tails[path] = self._tail(path, finder.before.get(path)), None
        took = time.monotonic() - began
        self._look_again = began + took / _SHARE_OF_LOOKING

    def _tail(self, path: Path, before: Mark | None) -> Tail:
        if self._source.kind == "tensorboard":
            return EventTail(path, self._since if before else 0.0)
        now = mark_of(path)
        grown = before is not None and now is not None and now.inode == before.inode and now.size >= before.size
        begin = before.size if before is not None and grown else 0
        return (CsvTail if self._source.kind == "csv" else JsonTail)(path, begin, self._source.step)

    def _line(self, tail: Tail, row: Row, now: int) -> bytes | None:
        """The row as a line of the spool; None: that has it already.

        `now`: its time in milliseconds, where it says none.
        """
        metrics = {metric_name(self._name(tail, name)): value for name, value in row.metrics.items()}
        if self._reported and self._reported[key := _key(row.step, metrics)] > 0:
            self._reported[key] -= 1
            return None
        at = now if row.time is None else int(row.time * 1000)
        return json.dumps({"time": at, "step": row.step, "metrics": metrics}).encode() + b"\n"

    def _name(self, tail: Tail, name: str) -> str:
        """The metric's own name for the first file that has it; another file's has the file's, or its folder's, before.

        TensorBoard keeps several runs, such as training and validation, in folders; tables are told by their names.
        """
        of_folder = self._source.kind == "tensorboard"
        owner = str(tail.path.parent) if of_folder else str(tail.path)
        if self._owners.setdefault(name, owner) == owner:
            return name
        return f"{tail.path.parent.name if of_folder else tail.path.stem}/{name}"
