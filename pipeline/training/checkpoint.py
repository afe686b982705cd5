"""Checkpoints: written atomically, described by a small JSON file beside them, loaded without pickle's powers."""

from __future__ import annotations

import io
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.attempt.checkpoint_files import FORMAT, BadCheckpoint, CheckpointInfo, inspect, sha256

__all__ = ["FORMAT", "BadCheckpoint", "prune", "read_checkpoint", "read_or_older", "select_experts", "write_checkpoint"]


def write_checkpoint(folder: Path, name: str, state: dict[str, Any], **info: Any) -> Path:
    """Writes `name`.pt and then `name`.json; a crash in between leaves the earlier checkpoints as they are.

    Raises:
        OSError: the disk is full; nothing of it is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    temporary, description = path.with_suffix(".tmp"), path.with_suffix(".json.tmp")
    try:
        content = io.BytesIO()
        torch.save(state, content)  # given a file, torch would not always say why it could not write
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        text = json.dumps(asdict(CheckpointInfo(sha256=sha256(temporary), **info)))
        with description.open("w") as file:
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
    os.fsync(entries)  # a power cut after this finds both names
    os.close(entries)
    return path


def read_checkpoint(path: Path, configuration: str = "") -> dict[str, Any]:
    """The state, after its checksum (and its configuration, if one is given) have been compared.

    Raises:
        BadCheckpoint: it is not what its description says.
    """
    inspect(path, configuration)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:  # no file of this program, or it does not fit
        raise BadCheckpoint(f"{path}: {' '.join(str(error).split())[:300]}") from error


def read_or_older(path: Path, configuration: str = "") -> tuple[dict[str, Any], Path, list[str]]:
    """The state of a checkpoint or, where that is bad, of the newest good one before it in the same folder.

    Returns the state, where it comes from, and what was wrong with those that were passed over.

    Raises:
        BadCheckpoint: none of them can be read.
    """
    problems: list[str] = []
    older = [each for each in sorted(path.parent.glob("*.pt"), reverse=True) if each.stem.isdigit() and each < path]
    for candidate in (path, *older):
        try:
            return read_checkpoint(candidate, configuration), candidate, problems
        except BadCheckpoint as error:
            problems.append(str(error))
    raise BadCheckpoint("; ".join(problems))


def prune(folder: Path, keep: int) -> None:
    """Keeps the newest `keep` checkpoints, older ones ever more thinly, and the newest best one.

    Of the older ones one is kept for each power of two of updates ago (64 – 127, 128 – 255, …), so that a failure with
    a long onset still finds a healthy one, at the cost of a few more files.
    """
    numbered = sorted((path for path in folder.glob("*.pt") if path.stem.isdigit()), reverse=True)
    kept_spans: set[int] = set()
    for path in reversed(numbered[keep:]):  # the oldest of each span stays, and so grows into the next span
        span = (int(numbered[0].stem) - int(path.stem)).bit_length()
        if span in kept_spans:
            _remove(path)
        kept_spans.add(span)
    for path in sorted(folder.glob("best-*.pt"))[:-1]:
        _remove(path)
    for path in folder.glob("*.tmp"):  # of a trainer that was killed while it wrote
        path.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def select_experts(
    tensors: dict[str, Tensor], rows: set[str], source: tuple[str, ...], target: tuple[str, ...]
) -> dict[str, Tensor]:
    """Of the parameters in `rows` (first dimension: expert), the rows of the target's experts, in its order."""
    if source == target:
        return tensors
    index = torch.tensor([source.index(name) for name in target])
    return {name: tensor[index] if name in rows else tensor for name, tensor in tensors.items()}
