"""What a remedy is: as data, what it does to the configuration and to what is carried over from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.attempt.file import Carry
from pipeline.config import ExperimentConfig, PolicySection, flatten
from pipeline.health.verdict import TrainingVerdict

TUNED = 10.0
"""A number within this factor of the brief's counts as tuned, and stays; one farther off counts as a possible cause."""
_BRIEF = flatten(ExperimentConfig())


@dataclass(frozen=True)
class Restored:
    """A key that gets the brief's value back, where the experiment's lies far on the harmful side of it."""

    key: str
    harmful: Literal["above", "below", "either", "other"]
    """other: any other value, for keys that are no numbers."""
    within: float = TUNED
    """How many times the brief's value still counts as tuned."""

    @property
    def value(self) -> Any:
        """The brief's value."""
        return _BRIEF[self.key]

    def deviates(self, value: Any) -> bool:
        """Whether a value of the experiment may be the cause of the failure."""
        if self.harmful == "other":
            return bool(value != self.value)
        above, below = value > self.value * self.within, value < self.value / self.within
        return bool((above and self.harmful != "below") or (below and self.harmful != "above"))


FIRST_SUSPECTS = (Restored("training.learning_rate", "above"), Restored("training.max_grad_norm", "above"))
"""What may be the cause of any failure: too large a learning rate and no clipping look like whatever breaks first."""


@dataclass(frozen=True)
class Reannealed:
    """Softmax once more from where the attempt starts, then the annealing to sparsemax, more slowly.

    It is temporary: the phases end it.
    """

    softmax_share: float
    """Length of the softmax, as a share of the run's episodes."""
    slower: float
    """How many times as long the transition takes as configured. It is over at the end of the run, at the latest."""

    def values(self, config: ExperimentConfig, episode: int) -> dict[str, Any]:
        """The keys that an attempt which starts at this episode gets."""
        phases, episodes = config.phases, config.training.episodes
        least = max(1, round(self.softmax_share * episodes))
        softmax_until = max(phases.warmup_until, episode + least)
        span = max(phases.transition_until - phases.warmup_until, least)
        return {
            "phases.warmup.routing": "softmax",
            "phases.warmup_until": softmax_until,
            "phases.transition_until": max(softmax_until, min(softmax_until + round(self.slower * span), episodes)),
        }


@dataclass(frozen=True)
class Remedy:
    """What is tried on the rung that failed, from its last good checkpoint, before the next rung.

    It first restores the brief's values, then scales them. A scaled key keeps its value for the rest of the attempt.
    """

    name: str
    summary: str
    cures: tuple[TrainingVerdict, ...]
    """The verdicts after which it is tried."""
    restores: tuple[Restored, ...]
    """The keys that the verdict concerns. What is restored also holds for the rungs after this one."""
    scales: Mapping[str, float]
    """Key → factor. Like what is reannealed, it holds on this rung alone, and further down with `ladder.cumulative`."""
    reannealed: Reannealed | None = None
    carry: Carry = Carry()
    """What it takes over from the checkpoint of its rung."""
    carry_from_decline: Carry | None = None
    """What it takes over where no checkpoint is from before the decline: from the newest one that was sound in all but
    the part of the policy that failed."""
    needs: Literal["a trained graph encoder", "V3's router"] | None = None
    """What a policy must have for this remedy to change anything."""

    def fits(self, policy: PolicySection) -> bool:
        """Whether a policy has what the remedy needs."""
        has = {
            None: True,
            "a trained graph encoder": policy.kind == "v3" and policy.graph and not policy.gat_frozen,
            "V3's router": policy.kind == "v3" and len(policy.experts) > 1,
        }
        return has[self.needs]

    def restored(self, config: ExperimentConfig) -> ExperimentConfig:
        """The configuration with the brief's values in place of those that lie far from them."""
        values = flatten(config)
        return config.with_values({each.key: each.value for each in self.restores if each.deviates(values[each.key])})

    def applied(self, config: ExperimentConfig, episode: int) -> ExperimentConfig:
        """The configuration of an attempt with this remedy that starts at this episode."""
        config = self.restored(config)
        values = flatten(config)
        changes = {key: values[key] * factor for key, factor in self.scales.items()}
        if self.reannealed is not None:
            changes |= self.reannealed.values(config, episode)
        return config.with_values(changes)
