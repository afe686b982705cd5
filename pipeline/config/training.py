"""The sections `training` and `phases`: PPO, and the brief's three phases."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Discount, NonNegative, Positive, PositiveInt, Probability, Section


class TrainingSection(Section):
    """PPO. Defaults are the brief's V3 values; V2's stand in `fallbacks/v2_router_gat.py`."""

    episodes: PositiveInt = 5000
    """The run is done after this many finished episodes."""
    steps: PositiveInt | None = None
    """The run is done after this many environment steps, if that is earlier."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU only for a policy so large (`policy.hidden_size` above 256) that it should be faster there."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads of one tensor operation; more than one seldom pays at these sizes."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Workers that share the games and the samples of each minibatch in equal parts (rounded up).
    Another number gives other results."""
    parallel: bool = True
    """Each worker has a process of its own, if there is a core for each and the device is the CPU; otherwise they take
    turns. The results are the same bit for bit."""
    rollout_steps: PositiveInt = 128
    """Steps of each environment between two updates."""

    learning_rate: NonNegative = 1e-4
    """With which the warm-up phase begins; later phases scale it (`phases.*.learning_rate_factor`)."""
    gat_learning_rate_factor: NonNegative = 1.0
    router_learning_rate_factor: NonNegative = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 1000
    """Optimiser steps of the linear learning-rate warm-up."""
    cosine: bool = True
    """Cosine annealing over the episodes of each phase, from its own rate to that of the next phase."""
    cosine_floor: Probability = 0.1
    """The last phase ends at this share of its rate."""
    clip_ratio: Positive = 0.15
    batch_size: PositiveInt = 256
    ppo_epochs: PositiveInt = 4
    gamma: Discount = 0.995
    gae_lambda: Probability = 0.97
    critic_coef: float = 0.5
    entropy_coef: float = 0.01
    alpha_entropy_coef: float = 0.05
    alpha_entropy_of: Literal["load", "sample"] = "load"
    """Entropy of the batch mean of α, or mean entropy of each α. The latter pins the router at uniform."""
    load_balance_coef: float = 0.01
    diversity_coef: float = 0.01
    max_grad_norm: Positive = 1.0

    reward_clip: Positive = 10.0
    reward_centring: bool = False
    """Subtract the running mean too: it turns nearly every reward of zero into a penalty for being alive."""
    checkpoint_every_episodes: PositiveInt = 100
    checkpoints_kept: Annotated[int, Field(ge=2)] = 5
    score_window: PositiveInt = 100
    """Episodes over which `score_window` is averaged; the best checkpoint is chosen by it."""


class PhaseSettings(Section):
    routing: Literal["softmax", "sparsemax"]
    learning_rate_factor: NonNegative


class PhasesSection(Section):
    """Three phases by finished episodes (the brief's table): warm-up, transition, fine-tune."""

    warmup_until: Annotated[int, Field(ge=0)] = 1000
    transition_until: Annotated[int, Field(ge=0)] = 3000
    warmup: PhaseSettings = PhaseSettings(routing="softmax", learning_rate_factor=1.0)
    transition: PhaseSettings = PhaseSettings(routing="sparsemax", learning_rate_factor=0.5)
    finetune: PhaseSettings = PhaseSettings(routing="sparsemax", learning_rate_factor=0.1)
    temperature_start: Positive = 1.0
    temperature_end: Positive = 0.5
    """The temperature divides the router's logits; linear in the episode between the two, over the transition."""

    def of(self, phase: int) -> PhaseSettings:
        """The settings of one phase."""
        return (self.warmup, self.transition, self.finetune)[phase]

    @model_validator(mode="after")
    def _ordered(self) -> PhasesSection:
        if self.transition_until < self.warmup_until:
            raise ValueError(
                f"transition_until: must not lie before warmup_until={self.warmup_until}, not {self.transition_until}"
            )
        return self
