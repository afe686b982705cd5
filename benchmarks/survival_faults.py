"""The faults of a night, as they really happen: signals, a locked database, a damaged file, a second orchestrator."""

from __future__ import annotations

import contextlib
import enum
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline.launchers.guardian import processes_of

LADDER = (sys.executable, "-W", "ignore", "-m", "pipeline")


class Struck(enum.Enum):
    """Whom a fault has struck: who has to go on now."""

    NOBODY = enum.auto()
    """It could not be injected: there was nothing to strike."""
    TRAINER = enum.auto()
    """It is dead; the orchestrator starts another."""
    ORCHESTRATOR = enum.auto()
    """It ends, or is dead; a person says `ladder resume`."""
    PASSING = enum.auto()
    """All go on by themselves."""


Fault = Callable[[Path, subprocess.Popen[bytes], random.Random], Struck]


def _trainers(root: Path) -> list[psutil.Process]:
    """The processes of the present attempt, the trainer itself first."""
    found = []
    for path in root.glob("attempts/*/attempt.json"):
        for pid in processes_of(f"LADDER_ATTEMPT={path}"):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return sorted(found, key=lambda process: process.pid)


def _signal(processes: list[psutil.Process], name: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(name)


def trainer(name: signal.Signals) -> Fault:
    def strike(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
        if process.poll() is not None or not (found := _trainers(root)):
            return Struck.NOBODY
        _signal(found if name == signal.SIGSTOP else found[:1], name)
        return Struck.PASSING if name == signal.SIGSTOP else Struck.TRAINER

    return strike


def worker_killed(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    found = _trainers(root)
    for each in found:
        with contextlib.suppress(psutil.Error):
            if "spawn_main" in " ".join(each.cmdline()):
                each.kill()
                return Struck.TRAINER
    return Struck.NOBODY


def orchestrator(name: signal.Signals) -> Fault:
    def strike(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
        if process.poll() is not None:
            return Struck.NOBODY
        process.send_signal(name)
        return Struck.ORCHESTRATOR

    return strike


def power_cut(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    if process.poll() is not None:
        return Struck.NOBODY
    _signal([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)], signal.SIGKILL)
    return Struck.ORCHESTRATOR


def store_locked(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    if not (root / "mlflow.db").exists():
        return Struck.NOBODY
    database = sqlite3.connect(root / "mlflow.db", isolation_level=None, timeout=20)
    with contextlib.closing(database) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(chance.uniform(1, 6))
        connection.execute("ROLLBACK")
    return Struck.PASSING


def checkpoint_damaged(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    """The newest one, just before the trainer dies."""
    found = sorted(root.glob("attempts/*/checkpoints/0*.pt"), key=lambda path: path.stat().st_mtime)
    trainers = _trainers(root)
    if not found or not trainers:
        return Struck.NOBODY
    _signal(trainers, signal.SIGSTOP)
    content = bytearray(found[-1].read_bytes())
    content[chance.randrange(len(content))] ^= 0xFF
    found[-1].write_bytes(content)
    _signal(trainers, signal.SIGKILL)
    return Struck.TRAINER


def second_orchestrator(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    """Refused, as long as the first is there: anything else would be two at once."""
    if not list(root.glob("experiments/*.lock")):
        return Struck.NOBODY
    second = subprocess.run([*LADDER, "resume", f"tracking.root={root}"], capture_output=True, text=True, check=False)
    if second.returncode != 2 and process.poll() is None:
        raise AssertionError(f"a second orchestrator was let in: {second.stdout}")
    return Struck.PASSING


def frozen(root: Path, process: subprocess.Popen[bytes], chance: random.Random) -> Struck:
    """All of it, as by a laptop that sleeps."""
    if process.poll() is not None:
        return Struck.NOBODY
    everything = [psutil.Process(process.pid), *_trainers(root)]
    _signal(everything, signal.SIGSTOP)
    time.sleep(chance.uniform(1, 25))
    _signal(everything, signal.SIGCONT)
    return Struck.PASSING


FAULTS: dict[str, Fault] = {
    "trainer SIGKILL": trainer(signal.SIGKILL),
    "trainer SIGSEGV": trainer(signal.SIGSEGV),
    "trainer SIGSTOP": trainer(signal.SIGSTOP),
    "worker SIGKILL": worker_killed,
    "orchestrator SIGKILL": orchestrator(signal.SIGKILL),
    "orchestrator SIGINT": orchestrator(signal.SIGINT),
    "orchestrator SIGTERM": orchestrator(signal.SIGTERM),
    "orchestrator SIGHUP": orchestrator(signal.SIGHUP),
    "power cut": power_cut,
    "store locked": store_locked,
    "checkpoint damaged": checkpoint_damaged,
    "second orchestrator": second_orchestrator,
    "all frozen": frozen,
}
