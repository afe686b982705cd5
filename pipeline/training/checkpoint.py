"""Checkpoints: written atomically, described by a small JSON file beside them, loaded as data and never as code."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.attempt.checkpoint_files import FORMAT, BadCheckpoint, CheckpointInfo, inspect, sha256

__all__ = [
    "BEST",
    "EARLY",
    "FORMAT",
    "BadCheckpoint",
    "changed_moments",
    "fit_inputs",
    "fit_moments",
    "prune",
    "read_checkpoint",
    "read_or_older",
    "select_experts",
    "upcycled",
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


_OF_INPUTS = ("gat.enter.weight", "visual.stats.weight")
"""Weights of layers that read observations; what `environment.paths` adds to these comes last."""


def fit_inputs(tensors: dict[str, Tensor], policy: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with as many inputs as this policy has.

    They may come from a policy that was told less, as before there was `environment.paths`. The weights of inputs that
    it did not know are 0, so it plays as it did. What this policy is no longer told is left out.

    Args:
        tensors: parameters by name, or means of their gradients.
        policy: parameters of the policy that continues, by name.
    """
    found = dict(tensors)
    for name, more in _more_inputs(tensors, policy):
        found[name] = functional.pad(tensors[name], (0, more))
    return found


def fit_moments(moments: dict[str, dict[str, Tensor]], policy: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Adam's moments by parameter name, with as many inputs as this policy has.

    The squared gradients of an input that is new are those of the unit's other inputs, in the mean. With 0, Adam would
    divide the first gradients by themselves alone, and move the new weights by several learning rates at each step.
    """

    def squares(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = fit_inputs(tensors, policy)
        for name, more in _more_inputs(tensors, policy):
            if more > 0:
                found[name][..., -more:] = tensors[name].mean(-1, keepdim=True)
        return found

    return changed_moments(moments, partial(fit_inputs, policy=policy), squares)


def _more_inputs(tensors: dict[str, Tensor], policy: dict[str, Tensor]) -> Iterator[tuple[str, int]]:
    """The tensors whose number of inputs may differ, and how many more this policy has."""
    for name in sorted(tensors.keys() & policy.keys() & set(_OF_INPUTS)):
        yield name, policy[name].shape[-1] - tensors[name].shape[-1]


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Changes tensors by name."""


def changed_moments(
    moments: dict[str, dict[str, Tensor]], change: Change, squares: Change | None = None
) -> dict[str, dict[str, Tensor]]:
    """Adam's moments by parameter name, with both of them changed; `squares` changes the second, if it is given."""
    for key, each in (("exp_avg", change), ("exp_avg_sq", squares or change)):
        tensors = each({name: values[key] for name, values in moments.items()})
        moments = {name: {**values, key: tensors[name]} for name, values in moments.items()}
    return moments


def select_experts(
    tensors: dict[str, Tensor], rows: set[str], source: tuple[str, ...], target: tuple[str, ...]
) -> dict[str, Tensor]:
    """The tensors with the experts of another policy.

    Args:
        tensors: parameters or moments by name.
        rows: names of the tensors whose first dimension is the expert; the others stay as they are.
        source: names of the experts in the tensors.
        target: names of the wanted experts, in their order; each is in `source`.
    """
    if source == target:
        return tensors
    index = torch.tensor([source.index(name) for name in target])
    return {name: tensor[index] if name in rows else tensor for name, tensor in tensors.items()}


_APART = 0.1
"""Share of its own first weights that sets an upcycled expert apart from the others."""


def upcycled(tensors: dict[str, Tensor], fresh: dict[str, Tensor], leader: int) -> dict[str, Tensor]:
    """A mixture whose experts all begin as the one that led, with a router that has learnt nothing.

    So the mixture plays as the leader did, whatever the router says, and the experts can part again (sparse upcycling:
    Komatsuzaki et al. 2023, https://arxiv.org/abs/2212.05055). Identical ones would stay identical, so each of the
    others gets a share of its first weights on top.

    Args:
        tensors: parameters of the policy by name.
        fresh: those of the same policy before training.
        leader: index of the expert.
    """
    found = {}
    for name, tensor in tensors.items():
        part = name.split(".")[0]
        if part == "experts":
            found[name] = tensor[leader] + _APART * fresh[name]
            found[name][leader] = tensor[leader]
        else:
            found[name] = fresh[name] if part == "router" else tensor
    return found
