"""Checkpoints as files: their descriptions, and whether the files match them.

`000123.json` beside `000123.pt` describes it. No torch here: the orchestrator chooses one, the trainer reads it. Those
of a script that describes none are kept in a folder of their own, with a description of another kind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.attempt.folder import AttemptFolder
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
class KeptInfo:
    """The description of a checkpoint that a script has written in its own way."""

    step: int
    file: str
    """File or folder, relative to the description's folder."""
    size: int
    """Bytes, of all files together."""
    modified: int
    """When the newest file was written, in nanoseconds since 1970."""
    origin: str
    """Where the script wrote it."""


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


def contents(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the newest change, in ns, of a file or of all files of a folder. Raises OSError."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    found = [each.stat() for each in files]
    return sum(each.st_size for each in found), max((each.st_mtime_ns for each in found), default=0)


def inspect_kept(description: Path) -> Checkpoint:
    """Compares a checkpoint that was kept for a script with its description.

    Raises:
        BadCheckpoint: it is gone, or has been written to since.
    """
    try:
        info = KeptInfo(**json.loads(description.read_text(encoding="utf-8")))
        path = description.parent / info.file
        if contents(path) != (info.size, info.modified):
            raise BadCheckpoint(f"{path}: has been changed since it was kept")
        # A script's steps stand for its episodes, which not every script counts.
        return Checkpoint(path=str(path), episode=info.step, step=info.step)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{description}: {type(error).__name__}: {error}") from error


def usable(folder: Path, configuration: str = "") -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The good checkpoints of an attempt, oldest first, and what is wrong with each of the others.

    Of two at the same step the one that was written later comes later.

    Args:
        folder: the attempt's `checkpoints`; beside it are those that were kept for a script.
        configuration: fingerprint of what was trained.
    """
    good, bad = [], []
    descriptions = sorted(AttemptFolder(folder.parent).kept.glob("*.json"))
    # Beside those that were kept, one without a description is a script's own, and was kept if it is a checkpoint.
    own = [path for path in sorted(folder.glob("*.pt")) if not descriptions or path.with_suffix(".json").exists()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # they may be large, and checksums keep one core busy each
        looks = [pool.submit(inspect, path, configuration) for path in own]
        for look in [*looks, *(pool.submit(inspect_kept, path) for path in descriptions)]:
            try:
                good.append(look.result())
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
