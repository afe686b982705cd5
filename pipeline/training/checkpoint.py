"""Checkpoints on disk: written atomically, described by a small JSON file beside them, loaded without pickle's powers.

The description (`000123.json` beside `000123.pt`) is all that the orchestrator reads: it has no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FORMAT = 2


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, for those who will not open it."""

    episode: int
    step: int
    """Environment steps."""
    update: int
    score_window: float | None
    kind: str
    experts: tuple[str, ...]
    sha256: str
    format: int = FORMAT


class BadCheckpoint(RuntimeError):
    """Damaged, foreign, or of another version."""


def write_checkpoint(folder: Path, name: str, state: dict[str, Any], **info: Any) -> Path:
    """Writes `name`.pt and then `name`.json; a crash in between leaves the earlier checkpoints as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    digest = _sha256(temporary)
    _sync_and_move(temporary, path)
    description = path.with_suffix(".json.tmp")
    description.write_text(json.dumps(asdict(CheckpointInfo(sha256=digest, **info))))
    _sync_and_move(description, path.with_suffix(".json"))
    return path


def _sync_and_move(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state, after its checksum has been compared.

    Raises:
        BadCheckpoint: it is not what its description says.
    """
    try:
        info = json.loads(path.with_suffix(".json").read_text())
        if info["format"] != FORMAT:
            raise BadCheckpoint(f"{path}: format {info['format']}, this program reads {FORMAT}")
        if _sha256(path) != info["sha256"]:
            raise BadCheckpoint(f"{path}: damaged, its checksum is not the one in its description")
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError) as error:
        raise BadCheckpoint(f"{path}: {error}") from error


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
