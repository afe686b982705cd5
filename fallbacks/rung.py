"""A rung of the ladder: a name, a pure function on the configuration, and which weights carry over, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.attempt import Carry
from pipeline.config import ExperimentConfig


@dataclass(frozen=True)
class Rung:
    """One configuration of the ladder.

    `transform` is pure: the same configuration in, the same out. It may raise ValueError where the base has not
    what the rung needs.
    """

    name: str
    summary: str
    transform: Callable[[ExperimentConfig], ExperimentConfig]
    carry: Carry = Carry()


def setting(values: Mapping[str, Any]) -> Callable[[ExperimentConfig], ExperimentConfig]:
    """The transform that sets these dotted keys."""
    return lambda config: config.with_values(values)
