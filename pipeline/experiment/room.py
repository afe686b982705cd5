"""The room of this machine, its cores and its memory: as many trainers run at a time as it has room for."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline.config import ExperimentConfig

_LOOK_SECONDS = 0.5
_GB = 2**30
_OWN_GB, _WORKER_GB = 0.4, 0.4
"""Of this project's own trainer and of each of its workers: twice what the quickstart's take, 0.6 GB with two."""
_SCRIPT_GB = 1.0
"""Of a trainer of the user's own that does not say what it needs."""


@dataclass(frozen=True)
class Need:
    """What a trainer takes."""

    cores: float
    memory_gb: float

    def __str__(self) -> str:
        return f"{self.cores:g} core{'s' * (self.cores != 1)} and {self.memory_gb:g} GB"


def need_of(config: ExperimentConfig) -> Need:
    """What `launcher.request` says; without it, an estimate. A trainer on a cluster takes nothing of this machine."""
    if config.launcher.kind != "local":
        return Need(0.0, 0.0)
    training, own = config.training, config.trainer.command is None
    workers = training.workers if own and training.parallel else 1
    cores = workers * training.threads if own else 1
    memory = _OWN_GB + _WORKER_GB * workers if own else _SCRIPT_GB
    asked = config.launcher.request
    return Need(float(asked.get("cores", cores)), float(asked.get("memory_gb", memory)))


@dataclass
class Room:
    """Cores and memory that trainers share. Each takes what it needs, and gives it back when it is gone.

    A trainer that needs more than there is runs alone: nothing would be gained by refusing it.
    """

    cores: float
    memory_gb: float
    _taken: list[Need] = field(default_factory=list)
    _waiting: list[object] = field(default_factory=list)
    """Those who wait, in their order: one that needs much is not passed by for ever."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @staticmethod
    def here() -> Room:
        """What this process may use of its machine."""
        return Room(_cores(), _memory_gb())

    def wait_for(self, need: Need, held: contextlib.ExitStack) -> Iterator[str]:
        """Takes what is needed, until `held` is closed. Meanwhile, twice a second, it yields what it waits for."""
        me = object()
        with self._changed:
            self._waiting.append(me)
        try:
            while not self._take(need, me):
                yield f"queued for {need}; this machine has {self.cores:g} cores and {self.memory_gb:.0f} GB"
                with self._changed:
                    self._changed.wait(_LOOK_SECONDS)
            held.callback(self._give_back, need)
        finally:
            with self._changed:
                self._waiting.remove(me)
                self._changed.notify_all()

    def _take(self, need: Need, me: object) -> bool:
        with self._changed:
            if self._waiting[0] is not me:
                return False
            cores = sum(each.cores for each in self._taken) + need.cores
            memory = sum(each.memory_gb for each in self._taken) + need.memory_gb
            fits = cores <= self.cores and memory <= self.memory_gb
            if fits or not self._taken:
                self._taken.append(need)
                return True
            return False

    def _give_back(self, need: Need) -> None:
        with self._changed:
            self._taken.remove(need)
            self._changed.notify_all()


NO_BOUNDS = Room(math.inf, math.inf)
"""For experiments that run one after another: one that is alone has all there is."""


def _cores() -> float:
    """The cores that this process may use, by its affinity and by its control group's quota."""
    found = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        found = min(found, max(1.0, int(quota) / int(period)))
    return found


def _memory_gb() -> float:
    """The memory that is free or can be freed, by the machine and by this process's control group."""
    found = float(psutil.virtual_memory().available)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found = min(found, float(int(Path(path).read_text(encoding="utf-8"))))
    return found / _GB
