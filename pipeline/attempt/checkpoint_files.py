"""Checkpoints as files: their descriptions, and whether the files match them.

`000123.json` beside `000123.pt` describes it. No torch here: the orchestrator chooses one, the trainer reads it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import ExperimentConfig

FORMAT = 2


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
        info = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if info.get("format", FORMAT) != FORMAT:
            raise BadCheckpoint(f"{path}: format {info['format']}, this program reads {FORMAT}")
        theirs = info.get("configuration", "")
        if configuration and theirs and theirs != configuration:
            raise BadCheckpoint(f"{path}: of another configuration ({theirs}, not {configuration})")
        if sha256(path) != info["sha256"]:
            raise BadCheckpoint(f"{path}: damaged, its checksum is not the one in its description")
        return Checkpoint(path=str(path), episode=int(info["episode"]), step=int(info["step"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadCheckpoint(f"{path}: {type(error).__name__}: {error}") from error


def usable(folder: Path, configuration: str = "") -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The good checkpoints of a folder, oldest first, and what is wrong with each of the others."""
    good, bad = [], []
    for path in sorted(folder.glob("*.pt")):
        try:
            good.append(inspect(path, configuration))
        except BadCheckpoint as error:
            bad.append(str(error))
    return tuple(sorted(good, key=lambda checkpoint: checkpoint.step)), tuple(bad)
