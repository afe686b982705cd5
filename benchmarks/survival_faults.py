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

from benchmarks.gateway import Gateway
from benchmarks.postgres import Cluster
from benchmarks.slurm_cluster import SlurmCluster
from benchmarks.tracking_server import TrackingServer
from benchmarks.wrong_clock import with_clock
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


@dataclass
class Scene:
    """What a fault can strike. The root and the environment are as the fault leaves them."""

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
    gateway: Gateway | None
    """The web server before that server, which everything passes."""
    cluster: SlurmCluster | None = None
    """Where the trainers run; None: on this machine."""

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
    lost: TrackingServer | Cluster = scene.server if scene.chance.random() < 0.5 else scene.server.database
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
    ended = "nothing to resume" in second.stdout  # the first was about to leave
    if second.returncode != 2 and not ended and not scene.over:
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


def scheduler(scene: Scene) -> Struck:
    """Sends the orchestrator a signal with which a scheduler warns before the end: time, preemption, CPU limit."""
    warning = scene.chance.choice([signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGALRM, signal.SIGVTALRM])
    return orchestrator(warning)(scene)


def gateway_pages(scene: Scene) -> Struck:
    """For up to twenty seconds the web server answers by itself, in HTML: something behind it restarts."""
    if scene.gateway is None:
        return Struck.NOTHING
    scene.gateway.answers = scene.chance.choice([502, 503, 504])
    time.sleep(scene.chance.uniform(1, 20))
    scene.gateway.answers = None
    return Struck.PASSING


def uploads_refused(scene: Scene) -> Struck:
    """For up to a minute the web server refuses every artifact: too large, or not permitted."""
    if scene.gateway is None:
        return Struck.NOTHING
    scene.gateway.refuses_uploads = scene.chance.choice([413, 403])
    until = time.monotonic() + scene.chance.uniform(5, 60)
    while time.monotonic() < until and not scene.over:
        time.sleep(0.2)
    scene.gateway.refuses_uploads = None
    return Struck.PASSING


def root_moved(scene: Scene) -> Struck:
    """Kills the orchestrator, and moves everything that it has written to another folder."""
    if scene.over or not scene.root.exists():
        return Struck.NOTHING
    killed = power_cut(scene)
    scene.orchestrator.wait()
    until = time.monotonic() + 10
    while _trainers(scene.root) and time.monotonic() < until:
        time.sleep(0.1)
    scene.root = scene.root.rename(scene.root.with_name(f"moved-{scene.chance.randrange(10**9)}"))
    return killed


def store_gone(scene: Scene) -> Struck:
    """Takes the SQLite file away until the experiment ends, for a minute at most, and puts it back."""
    files = [path for end in ("", "-wal", "-shm") if (path := scene.root / f"mlflow.db{end}").exists()]
    if scene.over or scene.server is not None or not files:
        return Struck.NOTHING
    kept = scene.root.parent / "kept"
    kept.mkdir(exist_ok=True)
    for path in files:
        path.rename(kept / path.name)
    until = time.monotonic() + 60
    while not scene.over and time.monotonic() < until:
        time.sleep(0.1)
    made = [path.name for path in scene.root.glob("mlflow.db*")]
    for path in kept.iterdir():
        path.rename(scene.root / path.name)
    if made:
        raise AssertionError(f"a new store was made in place of the one that was taken away: {made}")
    return Struck.ORCHESTRATOR if scene.over else Struck.PASSING


def clock_wrong(scene: Scene) -> Struck:
    """Kills the orchestrator; the next one's clock is wrong by up to five days, or right again."""
    if scene.over:
        return Struck.NOTHING
    seconds = 0 if "LD_PRELOAD" in scene.environment else scene.chance.randrange(-5 * 86400, 5 * 86400)
    environment = with_clock(scene.environment, seconds, scene.root.parent)
    if environment is None:
        return Struck.NOTHING
    scene.environment = environment
    return power_cut(scene)


FAULTS: dict[str, Fault] = {
    "trainer SIGKILL": trainer(signal.SIGKILL),
    "trainer SIGSEGV": trainer(signal.SIGSEGV),
    "trainer SIGSTOP": trainer(signal.SIGSTOP),
    "worker SIGKILL": worker_killed,
    "orchestrator SIGKILL": orchestrator(signal.SIGKILL),
    "orchestrator SIGINT": orchestrator(signal.SIGINT),
    "orchestrator SIGTERM": orchestrator(signal.SIGTERM),
    "orchestrator SIGHUP": orchestrator(signal.SIGHUP),
    "scheduler's signal": scheduler,
    "power cut": power_cut,
    "store locked": store_locked,
    "store taken away": store_gone,
    "tracking server away": server_away,
    "gateway's pages": gateway_pages,
    "uploads refused": uploads_refused,
    "disk full": disk_full,
    "checkpoint damaged": checkpoint_damaged,
    "second orchestrator": second_orchestrator,
    "all frozen": frozen,
    "root moved": root_moved,
    "clock wrong": clock_wrong,
}
