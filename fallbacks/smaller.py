"""What a retry has less of, after memory ran out."""

from __future__ import annotations

import math
from typing import Any

from pipeline.config import ExperimentConfig


def smaller(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration of a retry. This project's own trainer has half as many games; another has what its user says.

    Raises:
        ValueError: a key that does not exist, or a value to scale that is no number; the message begins with the key.
    """
    if config.trainer.command is None:
        half = max(1, config.environment.num_envs // 2)
        workers = math.gcd(half, config.training.workers)
        return config.with_values({"environment.num_envs": half, "training.workers": workers})
    if (less := config.trainer.on_out_of_memory) is None:
        return config
    changes = {**less.set, **{key: _scaled(config, key, by) for key, by in less.scale.items()}}
    try:
        return config.with_values(changes)
    except KeyError as error:
        raise ValueError(f"trainer.on_out_of_memory.set: {error.args[0]} is no key") from error


def _scaled(config: ExperimentConfig, key: str, factor: float) -> float:
    """A value, scaled; a whole number stays one, and does not fall below 1."""
    value: Any = config.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"trainer.on_out_of_memory.scale: {key} is no number, but {value!r}")
    return max(1, int(value * factor)) if isinstance(value, int) else value * factor
