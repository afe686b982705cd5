"""The file through which an orchestrator tells a trainer what to do: all they share beside the MLflow run.

A trainer finds its path in the environment variable `LADDER_ATTEMPT`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig, Fault

ATTEMPT_VARIABLE = "LADDER_ATTEMPT"
URI_VARIABLE, RUN_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"
EXIT_INTERRUPTED = 130
EXIT_OUT_OF_MEMORY = 12
"""A trainer that ran out of memory and could still say so ends with errno's ENOMEM."""
EXIT_DISK_FULL = 28
"""One that could not write, with errno's ENOSPC."""
EXIT_KILLED = 137
"""One of whose processes somebody has killed (SIGKILL), as shells say it."""


class Carry(BaseModel):
    """Which weights of a checkpoint a configuration starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: tuple[str, ...] | None = None
    """Top-level parts of the policy (`gat`, `router`, …); None: all of them."""
    optimiser: bool = True
    """Adam's moments of what is carried over."""
    schedule: bool = True
    """Go on at the checkpoint's episode, with its reward statistics; otherwise begin at episode 0."""


class WarmStart(BaseModel):
    """A checkpoint to start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    run_id: str
    episode: int
    carry: Carry = Carry()
    exact: bool = False
    """Same configuration: go on bit for bit, random state and games included."""


class PendingFault(BaseModel):
    """A fault of the configuration (by its index there) that has not struck often enough yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    fault: Fault

    def marker(self, folder: Path) -> Path:
        """The file that says that it has struck in this attempt."""
        return folder / f"fault-{self.index}.struck"


class AttemptFile(BaseModel):
    """One attempt: what to train, where to write, what to start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: ExperimentConfig
    run_id: str
    rung: str
    number: int
    folder: str
    warm_start: WarmStart | None = None
    resume_from: WarmStart | None = None
    """A checkpoint of this very attempt, which was interrupted and is continued; it comes before `warm_start`."""
    reported_step: int | None = None
    """What has been reported of it already, if it is continued: metrics up to these environment steps."""
    random_score: dict[str, float] | None = None
    """Random baseline as measured by an earlier attempt: metrics by name."""
    faults: tuple[PendingFault, ...] = ()

    @property
    def path(self) -> Path:
        return self.where.file

    @property
    def where(self) -> AttemptFolder:
        return AttemptFolder(Path(self.folder))

    def write(self) -> Path:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # nobody else puts a checkpoint in here
        write_atomically(self.path, json.dumps(self.model_dump(mode="json"), indent=2))
        return self.path

    @classmethod
    def read(cls, path: str | Path) -> AttemptFile:
        """Raises: pydantic.ValidationError or OSError."""
        return cls.model_validate_json(Path(path).read_text())
