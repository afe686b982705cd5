"""What a cluster has to be able to do: four verbs. Another one (Kubernetes) is another file that implements them.

An engine that can tell the states of several jobs at once says so with a fifth (:class:`AnswersForSeveral`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import pipeline

NODES_OWN = (
    "SLURM", "SBATCH_", "SRUN_", "RAY_", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE", "ROCR_VISIBLE", "HIP_VISIBLE",
    "GPU_DEVICE_ORDINAL", "ZE_AFFINITY", "HOSTNAME",
)  # fmt: skip
"""Beginnings of the variables that an engine sets on a node. A submitter's own, within a job, do not travel."""

SUSPENDED = "suspended"
"""Why a job is queued that has begun and is held in place."""


class EngineAway(Exception):
    """The engine does not answer now. It may come back, and its jobs go on meanwhile."""


class Refused(Exception):
    """The engine does not take the job, however often it is asked. The message says why."""


End = Literal["done", "failed", "out_of_memory", "taken", "cancelled", "unknown"]


@dataclass(frozen=True)
class State:
    """What an engine says of a job."""

    phase: Literal["queued", "running", "ended"]
    """A suspended job is queued."""
    why: str = ""
    """Why it waits, or why it ended, in the engine's words."""
    where: str = ""
    """The node."""
    end: End = "unknown"
    """taken: preempted, its node lost, its time limit reached. cancelled: by a person. unknown: the engine has
    forgotten it, or never knew it."""
    code: int = 1
    """The exit code, once it has ended; negative: killed by that signal."""


class Engine(Protocol):
    """A cluster's scheduler.

    Raises:
        EngineAway: it does not answer. A job may have been submitted all the same; `find` tells.
    """

    name: str
    """As users know it, such as `slurm`."""

    def submit(self, name: str, command: Sequence[str], folder: Path, output: Path) -> str:
        """Submits a job of this name that runs a command in a folder; returns its id.

        Raises:
            Refused: it will not take it.
        """

    def state(self, job: str) -> State:
        """What has become of the job with this id."""

    def cancel(self, job: str) -> None:
        """Cancels it, whether it waits or runs. One that has ended, or is not known, is no error."""

    def test(self) -> str:
        """What it says of a job with these options, without one.

        Raises:
            Refused: it would not take it.
        """

    def find(self, name: str) -> str | None:
        """The id of the job with this name that waits or runs; None: there is none."""


@runtime_checkable
class AnswersForSeveral(Engine, Protocol):
    """An engine that is asked once about all jobs of a process. One that cannot do this is asked about each."""

    address: str
    """Where it is. Engines with the same name and address know the same jobs."""

    def states(self, jobs: Sequence[str]) -> Mapping[str, State]:
        """What has become of the jobs with these ids. One that is left out is asked about on its own."""


def warden_command(folder: Path, nonce: str) -> list[str]:
    """The command that runs on the node. There is no password in it."""
    code = str(Path(pipeline.__file__).resolve().parents[1])
    return [
        *("/usr/bin/env", f"PYTHONPATH={code}", "PYTHONUNBUFFERED=1"),
        *(sys.executable, "-P", "-m", "pipeline.launchers.warden", str(folder), nonce),
    ]


def portable(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to the machine, or to the job, in which it was."""
    return {name: value for name, value in environment.items() if not name.startswith(NODES_OWN)}
