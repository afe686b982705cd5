"""The brief's pre-flight checklist: what a configuration asks for, and which code does it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import ExperimentConfig
from pipeline.health.phase import Phase


@dataclass(frozen=True)
class Item:
    """One line of the checklist."""

    name: str
    true: bool
    configured: str
    where: str
    """module:name of the code that does it."""


def preflight(config: ExperimentConfig) -> tuple[Item, ...]:
    """The ten items, each judged for this configuration.

    With a `trainer.command` only the monitor's item can be true: what another trainer does is not known.
    """
    training, phases, policy = config.training, config.phases, config.policy
    v3, several = policy.kind == "v3", policy.kind != "ppo" and len(policy.experts) > 1
    annealed = f"{phases.warmup_until} – {phases.transition_until}"
    kind = "" if v3 else f", policy.kind={policy.kind}"
    experts = "" if several else f"{kind}, one expert: the term is constant"
    routing = " → ".join(phases.of(phase).routing for phase in Phase)
    annealing = (phases.temperature_start, phases.temperature_end)
    factors = {
        "phases.warmup.learning_rate_factor": phases.warmup.learning_rate_factor,
        "training.gat_learning_rate_factor": training.gat_learning_rate_factor,
        "training.router_learning_rate_factor": training.router_learning_rate_factor,
    }
    scaled = "".join(f", {key}={factor:g}" for key, factor in factors.items() if factor != 1)

    def of_trainer(name: str, true: bool, configured: str, where: str) -> Item:
        own = config.trainer.command is None
        return Item(name, true and own, configured if own else "trainer.command is your own", where)

    return (
        of_trainer(
            "learning rate 1e-4",
            training.learning_rate == 1e-4 and not scaled,
            f"training.learning_rate={training.learning_rate:g}{scaled}",
            "pipeline.training.phases:learning_rate_at",
        ),
        of_trainer(
            "load-balance loss",
            training.load_balance_coef > 0 and several,
            f"training.load_balance_coef={training.load_balance_coef:g}{experts}",
            "pipeline.training.losses:load_balance",
        ),
        of_trainer(
            "diversity loss",
            training.diversity_coef > 0 and several,
            f"training.diversity_coef={training.diversity_coef:g}{experts}",
            "pipeline.training.losses:diversity",
        ),
        of_trainer(
            "warm-up (softmax → sparsemax)",
            v3 and routing == "softmax → sparsemax → sparsemax" and 0 < phases.warmup_until < training.episodes,
            f"{routing}, sparsemax from episode {phases.warmup_until} of {training.episodes}{kind}",
            "pipeline.training.rollout:Collector",
        ),
        of_trainer(
            "temperature annealing",
            v3 and annealing == (1.0, 0.5) and phases.warmup_until < phases.transition_until <= training.episodes,
            f"{annealing[0]:g} → {annealing[1]:g} over episodes {annealed}{kind}",
            "pipeline.training.phases:temperature_at",
        ),
        of_trainer(
            "NaN detection and rollback",
            True,
            "always on",
            "pipeline.training.numerics:LastGoodState",
        ),
        Item(
            "TrainingMonitor",
            any(rule.action == "fail" for rule in config.health.build()),
            f"health.rules={config.health.rules}, {len(config.health.build())} rules",
            "pipeline.experiment.watchdog:Watchdog",
        ),
        of_trainer(
            "clipping at 1.0",
            training.max_grad_norm == 1.0,
            f"training.max_grad_norm={training.max_grad_norm:g}",
            "pipeline.training.ppo:PPO",
        ),
        of_trainer(
            "nan_to_num + clamp on all logits",
            True,
            "always on, ±20",
            "pipeline.policy.interface:bound_logits",
        ),
        of_trainer(
            "checkpoint every 100 episodes",
            training.checkpoint_every_episodes <= 100,
            f"training.checkpoint_every_episodes={training.checkpoint_every_episodes}",
            "pipeline.training.checkpoint:write_checkpoint",
        ),
    )


def too_short(config: ExperimentConfig) -> str:
    """The failing rules that need more episodes than the configuration gives them, in words; empty: there are none."""
    ends = (config.phases.warmup_until, config.phases.transition_until, config.training.episodes)
    named = []
    for rule in config.health.build():
        if rule.action != "fail" or not rule.least_episodes:
            continue
        last = Phase.FINETUNE if rule.phases is None else max(rule.phases)
        episodes = min(ends[last], config.training.episodes)
        if episodes < rule.least_episodes:
            until = "" if last == Phase.FINETUNE else f" before {Phase(last + 1).key}"
            named.append(f"{rule.name} (needs {rule.least_episodes} episodes{until}, here {episodes})")
    return ", ".join(named)
