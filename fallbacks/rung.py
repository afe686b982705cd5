"""What a rung of the ladder is: a name, a pure function on the configuration, and the weights that carry over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.attempt.file import Carry
from pipeline.config import ExperimentConfig, PolicySection
from pipeline.health.verdict import TrainingVerdict


@dataclass(frozen=True)
class Rung:
    """One configuration of the ladder.

    `transform` is pure: the same configuration in, the same out. It may raise ValueError where the base lacks what the
    rung needs.
    """

    name: str
    summary: str
    transform: Callable[[ExperimentConfig], ExperimentConfig]
    carry: Carry = Carry()
    warm_start: bool = True
    """Whether it may continue from a checkpoint at all."""
    needs: Literal["a graph encoder", "V3's router", "experts"] | None = None
    """What a policy must have for this rung to change anything."""
    addresses: tuple[TrainingVerdict, ...] | None = None
    """The failures whose cause the rung may remove; None: any. `ladder.guided` skips it after other failures."""

    def check(self, base: PolicySection) -> None:
        """Raises ValueError where the base lacks what the rung needs."""
        has = {
            None: True,
            "a graph encoder": base.has_graph,
            "V3's router": base.kind == "v3",
            "experts": base.kind != "ppo",
        }
        if not has[self.needs]:
            where = f"policy.kind={base.kind}" + ("" if base.graph else ", policy.graph=False")
            raise ValueError(f"ladder.rungs: {self.name} needs {self.needs}, and there is none with {where}")


def setting(values: Mapping[str, Any]) -> Callable[[ExperimentConfig], ExperimentConfig]:
    """A transform that sets these dotted keys."""
    return lambda config: config.with_values(values)
