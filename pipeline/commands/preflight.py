"""The brief's pre-flight checklist: what a configuration has, and where the code does it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ExperimentConfig


@dataclass(frozen=True)
class Item:
    """One line of the checklist."""

    name: str
    true: bool
    configured: str
    where: str
    """module:name of the code that does it."""


def preflight(config: ExperimentConfig) -> tuple[Item, ...]:
    """The ten items, each judged for this configuration."""
    training, phases, policy = config.training, config.phases, config.policy
    v3 = policy.kind == "v3"
    routing = " → ".join(phase.routing for phase in (phases.warmup, phases.transition, phases.finetune))
    annealing = (phases.temperature_start, phases.temperature_end)
    own = config.trainer.command is None
    return (
        Item(
            "learning rate 1e-4",
            training.learning_rate == 1e-4,
            f"training.learning_rate={training.learning_rate:g}",
            "pipeline.training.phases:learning_rate_at",
        ),
        Item(
            "load-balance loss",
            training.load_balance_coef > 0,
            f"training.load_balance_coef={training.load_balance_coef:g}",
            "pipeline.training.losses:load_balance",
        ),
        Item(
            "diversity loss",
            training.diversity_coef > 0,
            f"training.diversity_coef={training.diversity_coef:g}",
            "pipeline.training.losses:diversity",
        ),
        Item(
            "warm-up (softmax → sparsemax)",
            v3 and routing == "softmax → sparsemax → sparsemax" and 0 < phases.warmup_until < training.episodes,
            f"{routing}, sparsemax from episode {phases.warmup_until} of {training.episodes}"
            + ("" if v3 else f", policy.kind={policy.kind}"),
            "pipeline.training.rollout:Collector",
        ),
        Item(
            "temperature annealing",
            v3 and annealing == (1.0, 0.5) and phases.warmup_until < phases.transition_until <= training.episodes,
            f"{annealing[0]:g} → {annealing[1]:g} over episodes {phases.warmup_until} – {phases.transition_until}",
            "pipeline.training.phases:temperature_at",
        ),
        Item(
            "NaN detection and rollback",
            own,
            "always on" if own else "trainer.command is your own",
            "pipeline.training.numerics:LastGoodState",
        ),
        Item(
            "TrainingMonitor",
            any(rule.action == "fail" for rule in config.health.build()),
            f"health.rules={config.health.rules}, {len(config.health.build())} rules",
            "pipeline.watch:Watch",
        ),
        Item(
            "clipping at 1.0",
            training.max_grad_norm == 1.0,
            f"training.max_grad_norm={training.max_grad_norm:g}",
            "pipeline.training.ppo:PPO",
        ),
        Item(
            "nan_to_num + clamp on all logits",
            own,
            "always on, ±20" if own else "trainer.command is your own",
            "pipeline.policy.interface:bound_logits",
        ),
        Item(
            "checkpoint every 100 episodes",
            training.checkpoint_every_episodes <= 100,
            f"training.checkpoint_every_episodes={training.checkpoint_every_episodes}",
            "pipeline.training.checkpoint:write_checkpoint",
        ),
    )
