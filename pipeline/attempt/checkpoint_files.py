"""Checkpoints as files: their descriptions, and whether the files match them.

`000123.json` beside `000123.pt` describes it. No torch here: the orchestrator chooses one, the trainer reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.config import ExperimentConfig

FORMAT = 2
_LARGEST_DESCRIPTION = 2**20
"""Bytes."""
_AT_ONCE = 4
"""Checkpoints."""
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class BadCheckpoint(RuntimeError):
    """Damaged, foreign, or of another version."""


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's description."""

    episode: int
    step: int
    """Environment steps."""
    update: int
    score_window: float | None
    kind: str
    experts: tuple[str, ...]
    sha256: str
    configuration: str = ""
    """Fingerprint of the configuration that was trained."""
    format: int = FORMAT


class _Description(BaseModel):
    """What is read of a description, of this project's trainer or another."""

    episode: _Count
    step: _Count
    sha256: str
    configuration: Any = ""
    format: Any = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose file matches its description."""

    path: str
    episode: int
    step: int


def fingerprint(config: ExperimentConfig) -> str:
    """Fingerprint of everything that decides the numbers of a training.

    A key that a later version adds, with its default, changes nothing.
    """
    sections = {"environment", "policy", "training", "phases", "trainer"}
    config = config.with_values({"training.parallel": True})  # or not: the same numbers, bit for bit
    text = config.model_dump_json(include=sections, exclude_defaults=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(path: Path, configuration: str = "") -> Checkpoint:
    """Compares a checkpoint with its description, and its configuration with this one, where both are given.

    A trainer of the user's own describes at least `episode`, `step` and `sha256`.

    Raises:
        BadCheckpoint: it is not what it should be.
    """
    try:
        with path.with_suffix(".json").open("rb") as file:
            info = _Description.model_validate_json(file.read(_LARGEST_DESCRIPTION))
        if info.format != FORMAT:
            raise BadCheckpoint(f"{path}: format {str(info.format)[:20]}, this program reads {FORMAT}")
        theirs = info.configuration
        if configuration and theirs and theirs != configuration:
            raise BadCheckpoint(f"{path}: of another configuration ({str(theirs)[:20]}, not {configuration})")
        if sha256(path) != info.sha256:
            raise BadCheckpoint(f"{path}: damaged, its checksum is not the one in its description")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadCheckpoint(f"{path}: its description is damaged: {where}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise BadCheckpoint(f"{path}: {type(error).__name__}: {error}") from error
    return Checkpoint(path=str(path), episode=info.episode, step=info.step)


def usable(folder: Path, configuration: str = "") -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The good checkpoints of a folder, oldest first, and what is wrong with each of the others.

    Of two at the same step the one that was written later comes later.
    """
    good, bad = [], []
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # they may be large, and checksums keep one core busy each
        for looked_at in [pool.submit(inspect, path, configuration) for path in sorted(folder.glob("*.pt"))]:
            try:
                good.append(looked_at.result())
            except BadCheckpoint as error:
                bad.append(str(error))
    return tuple(sorted(good, key=lambda each: (each.step, _written(each)))), tuple(bad)


def newest(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The one of the highest step; of several at that step the last."""
    return max(reversed(checkpoints), key=lambda checkpoint: checkpoint.step)


def _written(checkpoint: Checkpoint) -> int:
    """When its file was written, in nanoseconds."""
    with contextlib.suppress(OSError):
        return Path(checkpoint.path).stat().st_mtime_ns
    return 0
