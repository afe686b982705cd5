"""Checkpoints: written atomically, described by a small JSON file beside them, loaded as data and never as code."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.attempt.checkpoint_files import FORMAT, BadCheckpoint, CheckpointInfo, inspect, sha256

__all__ = [
    "BEST",
    "EARLY",
    "FORMAT",
    "BadCheckpoint",
    "prune",
    "read_checkpoint",
    "read_or_older",
    "write_checkpoint",
]

BEST, EARLY = "best-", "early-"
"""What the names of checkpoints begin with that are not one of those every so many episodes."""


def write_checkpoint(folder: Path, name: str, state: dict[str, Any], **info: Any) -> Path:
    """Writes `name`.pt and then `name`.json, and returns the path of the first.

    A crash in between leaves the earlier checkpoints as they are.

    Args:
        folder: the folder of the attempt's checkpoints.
        name: name of the files.
        state: nested dicts and lists of tensors and numbers.
        info: fields of :class:`CheckpointInfo`, except `sha256`.

    Raises:
        OSError: the disk is full; no part of the checkpoint is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    temporary, description = path.with_suffix(".tmp"), path.with_suffix(".json.tmp")
    try:
        content = io.BytesIO()
        torch.save(state, content)  # to memory: writing to a file itself, torch may hide why it failed
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        text = json.dumps(asdict(CheckpointInfo(sha256=sha256(temporary), **info)))
        with description.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        description.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    description.replace(path.with_suffix(".json"))
    entries = os.open(folder, os.O_RDONLY)
    os.fsync(entries)  # after this a power cut does not lose the names
    os.close(entries)
    return path


def read_checkpoint(path: Path, configuration: str = "") -> dict[str, Any]:
    """The state in a checkpoint, after its checksum has been compared, and its configuration if one is given.

    Args:
        path: the `.pt` file.
        configuration: fingerprint that the checkpoint must have; empty: any.

    Raises:
        BadCheckpoint: the file is not what its description says, or it cannot be loaded.
    """
    inspect(path, configuration)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # foreign file, or one that holds code
        raise BadCheckpoint(f"{path}: {' '.join(str(error).split())[:300]}") from error


def read_or_older(path: Path, configuration: str = "") -> tuple[dict[str, Any], Path, list[str]]:
    """Reads a checkpoint or, if it is bad, the newest good one before it in the same folder.

    Returns:
        The state, the path that it comes from, and what is wrong with each checkpoint that was passed over.

    Raises:
        BadCheckpoint: no checkpoint can be read.
    """
    problems: list[str] = []
    others = [each for each in path.parent.glob("*.pt") if each.stem.isdigit() or each.stem.startswith(EARLY)]
    older = sorted((each for each in others if _update(each) < _update(path)), key=_update, reverse=True)
    for candidate in (path, *older):
        try:
            return read_checkpoint(candidate, configuration), candidate, problems
        except BadCheckpoint as error:
            problems.append(str(error))
    raise BadCheckpoint("; ".join(problems))


def prune(folder: Path, keep: int) -> None:
    """Removes checkpoints, except the newest `keep`, some older ones, and the newest best one.

    Of the older ones, one is kept for each power of two of updates ago (64 – 127, 128 – 255, …). So a failure with a
    long onset still finds a healthy checkpoint, at the cost of a few more files. Early ones all stay until there are
    `keep` others; then the same holds for them.
    """
    numbered = sorted((path for path in folder.glob("*.pt") if path.stem.isdigit()), reverse=True)
    early = sorted(folder.glob(f"{EARLY}*.pt"), reverse=True)
    for path in early[:1]:  # the last update of a training may be one of theirs
        if path.stem.removeprefix(EARLY) in {each.stem for each in numbered[:1]}:
            _remove(early.pop(0))
    _thin_out(numbered[keep:], numbered[:1])
    if len(numbered) >= keep:
        _thin_out(early, numbered[:1])
    for path in sorted(folder.glob(f"{BEST}*.pt"))[:-1]:
        _remove(path)
    for path in folder.glob("*.tmp"):  # left by a trainer that was killed while it wrote
        path.unlink(missing_ok=True)


def _thin_out(paths: Sequence[Path], newest: Sequence[Path]) -> None:
    """Keeps one for each power of two of updates before the newest checkpoint. `paths`: newest first."""
    kept_spans: set[int] = set()
    for path in reversed(paths):  # the oldest of each span stays, and moves into the next span with time
        span = (_update(newest[0]) - _update(path)).bit_length()
        if span in kept_spans:
            _remove(path)
        kept_spans.add(span)


def _update(path: Path) -> int:
    """The number in a checkpoint's name; −1: it has none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _remove(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
