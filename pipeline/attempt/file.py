"""The file through which an orchestrator tells a trainer what to do.

A trainer finds its path in the environment variable `LADDER_ATTEMPT`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig, Fault
from pipeline.health.monitor import rules_for
from pipeline.health.rule import Rule
from pipeline.secrets import hidden_in

ATTEMPT_VARIABLE = "LADDER_ATTEMPT"
URI_VARIABLE, RUN_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"
EXIT_INTERRUPTED = 130
EXIT_OUT_OF_MEMORY = 12
"""A trainer that ran out of memory and can still say so ends with errno's ENOMEM."""
EXIT_DISK_FULL = 28
"""A trainer that could not write ends with errno's ENOSPC."""
EXIT_KILLED = 137
"""A trainer one of whose processes was killed (SIGKILL) ends with what shells report for that."""


class Carry(BaseModel):
    """The weights of a checkpoint that a configuration takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: tuple[str, ...] | None = None
    """Top-level parts of the policy (`gat`, `router`, …); None: all of them."""
    optimiser: bool = True
    """Whether Adam's moments of these weights are taken over too."""
    schedule: bool = True
    """Whether training continues at the checkpoint's episode, with its reward statistics; else at episode 0."""
    forgets: tuple[str, ...] = ()
    """Parts of the policy whose weights are taken over without Adam's moments."""
    warmed_up: bool = True
    """Whether the learning rate's warm-up goes on where it was; else it begins again."""
    upcycles: bool = False
    """Whether the router begins anew and every expert takes over the weights of the one that was used most."""


class WarmStart(BaseModel):
    """A checkpoint to start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    run_id: str
    episode: int
    carry: Carry = Carry()
    exact: bool = False
    """Whether the configuration is the same: training then continues bit for bit, with random state and games."""


class PendingFault(BaseModel):
    """A fault of the configuration that has not struck often enough yet; `index` is its place there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    fault: Fault

    def marker(self, folder: Path) -> Path:
        """The file whose existence means that the fault has struck in this attempt."""
        return folder / f"fault-{self.index}.struck"


class AttemptFile(BaseModel):
    """One attempt: what to train, where to write, what to start from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: ExperimentConfig
    run_id: str
    rung: str
    remedy: str | None = None
    number: int
    folder: str
    command: tuple[str, ...] | None = None
    """The command of a trainer of the user's own, with its placeholders filled."""
    warm_start: WarmStart | None = None
    resume_from: WarmStart | None = None
    """A checkpoint of this attempt itself, if it was interrupted and continues. It comes before `warm_start`."""
    reported_step: int | None = None
    """Environment steps up to which an interrupted attempt has reported its metrics already."""
    random_score: dict[str, float] | None = None
    """The random baseline that an earlier attempt has measured: metrics by name."""
    faults: tuple[PendingFault, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules by which it is judged."""
        return rules_for(self.config.health.build(), warm_start=self.warm_start is not None)

    @property
    def path(self) -> Path:
        return self.where.file

    @property
    def where(self) -> AttemptFolder:
        return AttemptFolder(Path(self.folder))

    def write(self) -> Path:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # only this user can put a checkpoint in here
        content = self.model_dump(mode="json")
        for section in ("tracking", "notify"):  # the trainer has no use for their passwords
            content["config"][section] = hidden_in(content["config"][section])
        write_atomically(self.path, json.dumps(content, indent=2))
        return self.path

    @classmethod
    def read(cls, path: str | Path) -> AttemptFile:
        """The file's content, with paths that lead to where it lies now: the tracking root may have been moved.

        Raises: pydantic.ValidationError or OSError.
        """
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))._in(Path(path).absolute().parent)

    def _in(self, folder: Path) -> AttemptFile:
        """The same in another folder. A checkpoint is found by its attempt, under the same root."""
        if Path(self.folder) == folder:
            return self

        def found(start: WarmStart | None) -> WarmStart | None:
            if start is None:
                return None
            path = AttemptFolder(folder.parent / start.run_id).checkpoints / Path(start.checkpoint).name
            return start.model_copy(update={"checkpoint": str(path)}) if path.exists() else start

        changed = {"warm_start": found(self.warm_start), "resume_from": found(self.resume_from)}
        return self.model_copy(update={"folder": str(folder), **changed})
