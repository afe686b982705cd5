"""The faults of a night, as they really happen: signals, a store locked or away, a full disk, a damaged file.

Each fault is a function that strikes a :class:`Scene` and returns what it has struck.
"""

from __future__ import annotations

import contextlib
import enum
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.tracking_server import TrackingServer
from pipeline.processes.guardian import processes_of

LADDER = (sys.executable, "-W", "ignore", "-m", "pipeline")


class Struck(enum.Enum):
    """What a fault has struck, and so what has to happen next."""

    NOTHING = enum.auto()
    """The fault could not be injected, because there was nothing to strike."""
    TRAINER = enum.auto()
    """The trainer is dead; the orchestrator starts another."""
    ORCHESTRATOR = enum.auto()
    """The orchestrator ends or is dead; the user resumes the experiment."""
    PASSING = enum.auto()
    """All processes go on by themselves."""


@dataclass(frozen=True)
class Scene:
    """What a fault can strike."""

    root: Path
    """The experiments' `tracking.root`."""
    orchestrator: subprocess.Popen[bytes]
    chance: random.Random
    resume: tuple[str, ...]
    """The command that resumes an experiment."""
    environment: dict[str, str]
    """Environment variables of that command."""
    server: TrackingServer | None
    """The server in front of the store; None: the store is the SQLite file under the root."""

    @property
    def over(self) -> bool:
        """Whether the orchestrator's process has ended."""
        return self.orchestrator.poll() is not None


Fault = Callable[[Scene], Struck]


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
    """Sends a signal to the trainer; SIGSTOP also to its workers."""

    def strike(scene: Scene) -> Struck:
        if scene.over or not (found := _trainers(scene.root)):
            return Struck.NOTHING
        _signal(found if name == signal.SIGSTOP else found[:1], name)
        return Struck.PASSING if name == signal.SIGSTOP else Struck.TRAINER

    return strike


def worker_killed(scene: Scene) -> Struck:
    """Kills a worker of the trainer."""
    found = _trainers(scene.root)
    for each in found:
        with contextlib.suppress(psutil.Error):
            if each.name().startswith("worker"):
                each.kill()
                return Struck.TRAINER
    return Struck.NOTHING


def orchestrator(name: signal.Signals) -> Fault:
    """Sends a signal to the orchestrator."""

    def strike(scene: Scene) -> Struck:
        if scene.over:
            return Struck.NOTHING
        scene.orchestrator.send_signal(name)
        return Struck.ORCHESTRATOR

    return strike


def power_cut(scene: Scene) -> Struck:
    """Kills the orchestrator and all its descendants at once."""
    if scene.over:
        return Struck.NOTHING
    _signal(
        [*psutil.Process(scene.orchestrator.pid).children(recursive=True), psutil.Process(scene.orchestrator.pid)],
        signal.SIGKILL,
    )
    return Struck.ORCHESTRATOR


def store_locked(scene: Scene) -> Struck:
    """Locks the SQLite store for one to six seconds."""
    if scene.server is not None or not (scene.root / "mlflow.db").exists():
        return Struck.NOTHING
    database = sqlite3.connect(scene.root / "mlflow.db", isolation_level=None, timeout=20)
    with contextlib.closing(database) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(scene.chance.uniform(1, 6))
        connection.execute("ROLLBACK")
    return Struck.PASSING


def server_away(scene: Scene) -> Struck:
    """Stops the tracking server or its database for up to twenty seconds, one time in four for two minutes."""
    if scene.server is None:
        return Struck.NOTHING
    lost = scene.chance.choice([scene.server, scene.server.database])
    lost.stop()
    time.sleep(scene.chance.choice([120, *(scene.chance.uniform(1, 20) for _ in range(3))]))
    lost.start()
    return Struck.PASSING


def disk_full(scene: Scene) -> Struck:
    """Fills the disk until the experiment ends, for twenty seconds at most; only if the disk is the night's own."""
    if scene.over or not os.path.ismount(scene.root.parent):
        return Struck.NOTHING
    filler, until = scene.root.parent / "filler", time.monotonic() + 20
    with filler.open("wb", buffering=0) as file:
        while not scene.over and time.monotonic() < until:  # it fills again what removed checkpoints free
            with contextlib.suppress(OSError):
                file.write(bytes(2**16))
                continue
            time.sleep(0.005)
    filler.unlink()
    return Struck.ORCHESTRATOR if scene.over else Struck.PASSING


def checkpoint_damaged(scene: Scene) -> Struck:
    """Changes one byte of the newest checkpoint, and kills the trainer."""
    found = sorted(scene.root.glob("attempts/*/checkpoints/0*.pt"), key=lambda path: path.stat().st_mtime)
    trainers = _trainers(scene.root)
    if not found or not trainers:
        return Struck.NOTHING
    _signal(trainers, signal.SIGSTOP)
    content = bytearray(found[-1].read_bytes())
    content[scene.chance.randrange(len(content))] ^= 0xFF
    found[-1].write_bytes(content)
    _signal(trainers, signal.SIGKILL)
    return Struck.TRAINER


def second_orchestrator(scene: Scene) -> Struck:
    """Starts a second orchestrator, which must be refused while the first is at work."""
    if not list(scene.root.glob("experiments/*.lock")):
        return Struck.NOTHING
    second = subprocess.run(
        scene.resume, capture_output=True, text=True, check=False, env=scene.environment, encoding="utf-8"
    )
    if second.returncode != 2 and not scene.over:
        raise AssertionError(f"a second orchestrator was let in: {second.stdout}")
    return Struck.PASSING


def frozen(scene: Scene) -> Struck:
    """Stops all processes for up to 25 seconds, as a laptop that sleeps does."""
    if scene.over:
        return Struck.NOTHING
    everything = [psutil.Process(scene.orchestrator.pid), *_trainers(scene.root)]
    _signal(everything, signal.SIGSTOP)
    time.sleep(scene.chance.uniform(1, 25))
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
    "tracking server away": server_away,
    "disk full": disk_full,
    "checkpoint damaged": checkpoint_damaged,
    "second orchestrator": second_orchestrator,
    "all frozen": frozen,
}
