"""How an attempt ended: the verdict that its process leaves behind, and how it is written down for good.

First on the attempt's own disk (`ending.json`), then in the store, the run's status last: a run that is not RUNNING has
everything, and of one that still is, whoever comes next writes down what is missing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.attempt import EXIT_DISK_FULL, EXIT_KILLED, EXIT_OUT_OF_MEMORY
from pipeline.errors import DiskFull
from pipeline.health.rules import AnyRule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.survival.checkpoint_files import Checkpoint
from pipeline.tracking.spool import Spool, write_whole
from pipeline.tracking.store import Store
from pipeline.watch import Watch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger("ladder")
LOG_LIMIT = 2**20
"""Bytes of a trainer's log that are kept in the store; the whole of it stays in the attempt's folder."""
_DISK_FULL = ("No space left on device", "Disk quota exceeded")
_NO_ROOM = 2**16
"""Bytes."""


class Ending(BaseModel):
    """What is known when the process is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    seconds: float
    """That the attempt has taken, all of its parts if it was interrupted."""
    at: int
    """Milliseconds since 1970."""

    @staticmethod
    def now(verdict: Verdict, seconds: float) -> Ending:
        return Ending(verdict=verdict, seconds=seconds, at=int(time.time() * 1000))

    @staticmethod
    def path(folder: Path) -> Path:
        return folder / "ending.json"

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.path(folder), self.model_dump_json(indent=2))

    @staticmethod
    def read(folder: Path) -> Ending | None:
        """The ending of an attempt's folder, or None if nobody has written one down."""
        with contextlib.suppress(OSError, ValidationError):
            return Ending.model_validate_json(Ending.path(folder).read_text())
        return None


def conclude(
    store: Store,
    run_id: str,
    ending: Ending,
    rules: tuple[AnyRule, ...],
    checkpoints: tuple[Checkpoint, ...],
    describe: Callable[[Watch], str] = lambda _: "",
) -> tuple[Watch, list[Evidence]]:
    """Tells the store of an ending, and all that it does not have yet; the same once more changes nothing.

    `describe` says in a line what the attempt came to, for the run's note.

    Returns the run's latest metrics, and the warnings.
    """
    folder = store.root / "attempts" / run_id
    spool = Spool(folder)
    store.deliver(run_id, spool)
    watch = Watch(store, run_id, rules)
    _, warnings = watch.final()
    store.log_metrics(run_id, {"cost/seconds": ending.seconds}, step=max(0, watch.last_step), at=ending.at)
    if warnings:
        text = json.dumps([each.model_dump(mode="json", exclude={"values", "detail"}) for each in warnings])
        store.set_tags(run_id, {"ladder.warnings": text})
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
    if newest is not None and ending.verdict.name == "healthy":
        store.log_file(run_id, Path(newest.path), "policy")
        store.set_tags(run_id, {"ladder.policy": newest.path})
    with contextlib.suppress(DiskFull):  # the log is on that disk already, and a picture can be drawn again
        for name, figure in pictures(watch, (*ending.verdict.evidence, *warnings)):
            store.log_figure(run_id, figure, f"evidence/{name}.png")
        if log := end_of(folder / "trainer.log"):
            store.log_text(run_id, log, "trainer.log")
    store.end_attempt(run_id, ending.verdict, describe(watch))
    if ending.verdict.name != "interrupted":  # that one may go on, and must know what it has reported
        spool.remove()
    return watch, warnings


def pictures(watch: Watch, findings: Iterable[Evidence]) -> Iterator[tuple[str, Figure]]:
    """A picture of each rule that fired, by its name; one that cannot be drawn ends nothing."""
    rules = {rule.name: rule for rule in watch.rules}
    for each in findings:
        if each.rule not in rules:
            continue  # a crash, a hang: its evidence is the log
        from pipeline.health.plot import draw  # loads matplotlib, which a healthy experiment never needs

        try:
            yield each.rule, draw(watch.history([rules[each.rule]]), rules[each.rule], each)
        except (ValueError, ArithmeticError) as error:
            _log.warning("no picture of %s: %s", each.rule, error)


def verdict_at_exit(code: int, log: Path, kernel_kills: int, *, logged: bool) -> Verdict:
    """Of a process that has ended by itself and broken no rule.

    Args:
        code: its exit code; negative: killed by that signal.
        kernel_kills: how far `kernel_kills()` has risen while it ran.
        logged: whether it has logged any metric at all.
    """
    if code == 0 and logged:
        return Verdict(name="healthy")
    tail = tail_of(log)
    how: dict[str, Any] = {"signal": signal_name(-code)} if code < 0 else {"exit code": code}
    if code == 0:
        how["but"] = "not a single metric was logged"
    killed = code in (-signal.SIGKILL, EXIT_KILLED) and kernel_kills > 0
    if killed:
        how["by"] = "the kernel, for want of memory (oom_kill has risen)"
    if ran_into_full_disk(code, log, tail):
        how["disk"] = "full: a file could not be written; the checkpoints before it stand"
    out_of_memory = killed or code == EXIT_OUT_OF_MEMORY or any("MemoryError" in line for line in tail[-3:])
    last_line = {"last line": tail[-1]} if tail else {}
    evidence = Evidence(rule="exit", detail={**how, **last_line, "log_tail": tail})
    return Verdict(name="out_of_memory" if out_of_memory else "crash", evidence=(evidence,))


def ran_into_full_disk(code: int, log: Path, tail: list[str]) -> bool:
    """A trainer says so by its exit code (errno's ENOSPC) or in its last words; or there is no room for these."""
    said = any(words in line for line in tail[-3:] for words in _DISK_FULL)
    return code == EXIT_DISK_FULL or (code != 0 and (said or shutil.disk_usage(log.parent).free < _NO_ROOM))


def kernel_kills() -> int:
    """Rises when the kernel kills a process for want of memory, in this process's cgroup or on the whole machine."""
    counts = [_counter(Path("/proc/vmstat"), "oom_kill")]
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            version_2, version_1 = Path("/sys/fs/cgroup" + path), Path("/sys/fs/cgroup/memory" + path)
            counts += [
                _counter(version_2 / "memory.events", "oom_kill"),
                _counter(version_1 / "memory.oom_control", "oom_kill"),
            ]
    return sum(counts)


def _counter(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[0] == name), 0)


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text().splitlines()
    return []


def signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def tail_of(log: Path, lines: int = 20, size: int = 8192) -> list[str]:
    """The last lines of a log that may be long."""
    return end_of(log, size).splitlines()[-lines:]


def end_of(log: Path, size: int = LOG_LIMIT) -> str:
    """The last bytes of a log, as text."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return file.read().decode(errors="replace")
    return ""
