"""The brief's pre-flight checklist: what a configuration comes to in a run, and which code does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fallbacks.ladder import Ladder
from pipeline.config import PREFLIGHT_ITEMS, ExperimentConfig
from pipeline.health.phase import Phase

CHECKLIST = 10
"""The brief's checklist has so many items. The others are remedies that it names elsewhere."""
_RATES = (1e-4, 5e-5, 1e-5)
_EPISODES = (1000, 2000)
"""Of warm-up and transition."""
_WARMUP_STEPS = 1000
_PROBLEMS = ("expert_collapse", "gat_oversmoothing", "gradient_explosion", "reward_plateau")
"""The brief's four problems, as verdicts."""
_LEAST_SHARE = 50
"""A phase has at least one fiftieth of the run's episodes; the brief's have a fifth and two fifths."""


@dataclass(frozen=True)
class Item:
    """One line of the checklist."""

    key: str
    """Its name in `preflight.accept`."""
    name: str
    summary: str
    """What the configuration asks for."""
    where: str
    """module:name of the code that does it."""
    differs: tuple[str, ...] = ()
    """Key, value and what is allowed, of each value that is not as in the brief."""
    cut_short: tuple[str, ...] = ()
    """What the configuration asks for, and the run or a phase is too short for."""

    @property
    def true(self) -> bool:
        return not self.differs and not self.cut_short

    @property
    def configured(self) -> str:
        """What is so, in words: the summary, or what differs."""
        return self.summary if self.true else "; ".join((*self.differs, *self.cut_short))


def preflight(config: ExperimentConfig) -> tuple[Item, ...]:
    """The brief's ten items, and after them two of its remedies, each judged for this configuration.

    With a `trainer.command` only the monitor's item can be true: what another trainer does is not known.
    """
    items = (
        _learning_rate(config),
        _positive(config, "load_balance", "load-balance loss", "pipeline.training.losses:load_balance"),
        _positive(config, "diversity", "diversity loss", "pipeline.training.losses:diversity"),
        _warm_up(config),
        _temperature(config),
        Item("nan_rollback", "NaN detection and rollback", "always on", "pipeline.training.numerics:LastGoodState"),
        _monitor(config),
        _clipping(config),
        Item(
            "logits",
            "nan_to_num + clamp on all logits",
            "always on, ±20",
            "pipeline.policy.interface:bound_logits",
        ),
        _checkpoints(config),
        _entropy(config),
        _encoder(config),
    )
    if tuple(item.key for item in items) != PREFLIGHT_ITEMS:
        raise ImportError("PREFLIGHT_ITEMS of pipeline/config/ladder.py and pipeline/preflight.py differ")
    if config.trainer.command is None:
        return items
    unknown = ("trainer.command is your own",)
    return tuple(
        item if item.key == "monitor" else Item(item.key, item.name, "", item.where, unknown) for item in items
    )


def own_first(config: ExperimentConfig) -> ExperimentConfig:
    """What the experiment itself asks for first. A built-in rung differs from the brief by design."""
    return config if isinstance(config.ladder.rungs[0], str) else Ladder(config).configs[0]


def not_accepted(config: ExperimentConfig) -> list[str]:
    """A line for each item in which a V3 experiment differs from the brief without saying so in `preflight.accept`."""
    differing, already = _differing(config), config.preflight.accept
    wanted = ", ".join(accepting(config).preflight.accept)
    return [
        f"{name}: {'; '.join(item.differs)}; if it is meant: preflight.accept=[{wanted}]"
        for name, item in differing.items()
        if name not in already
    ]


def accepted(config: ExperimentConfig) -> tuple[str, ...]:
    """The items in which a V3 experiment differs from the brief, and says so."""
    return tuple(name for name in _differing(config) if name in config.preflight.accept)


def accepting(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment, which accepts every item in which it differs."""
    names = (*config.preflight.accept, *_differing(config))
    return config.with_values({"preflight.accept": tuple(name for name in PREFLIGHT_ITEMS if name in names)})


def _differing(config: ExperimentConfig) -> dict[str, Item]:
    first = own_first(config)
    if first.trainer.command is not None or first.policy.kind != "v3":
        return {}
    return {item.key: item for item in preflight(first) if item.differs}


def certain_episodes(config: ExperimentConfig) -> int:
    """The episodes that a run finishes at least, unless the ladder ends it: fewer than asked for, if steps end it."""
    training, environment = config.training, config.environment
    if training.steps is None:
        return training.episodes
    of_each_game = training.steps // environment.num_envs // environment.max_episode_steps
    return min(training.episodes, of_each_game * environment.num_envs)


def _end(config: ExperimentConfig) -> str:
    steps, episodes = config.training.steps, certain_episodes(config)
    whole = steps is None or episodes == config.training.episodes
    return f"the run has {episodes} episodes" if whole else f"{steps} steps are {episodes} episodes at least"


def _unlike(*values: tuple[bool, str, object, str]) -> tuple[str, ...]:
    """`key=value, allowed: …` of each (as it should be?, key, value, allowed) that is not."""
    return tuple(f"{key}={_shown(value)}, allowed: {allowed}" for good, key, value, allowed in values if not good)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mixture(config: ExperimentConfig) -> Iterator[tuple[bool, str, object, str]]:
    """What the terms on the router and the experts need: without it they are constant, or not there."""
    policy = config.policy
    yield policy.kind == "v3", "policy.kind", policy.kind, "v3"
    yield policy.kind == "ppo" or len(policy.experts) > 1, "policy.experts", policy.experts, "two or more"


def _learning_rate(config: ExperimentConfig) -> Item:
    """The rates with which the phases begin, for each part of the policy, and how they go on."""
    training, phases = config.training, config.phases
    rate = training.learning_rate
    factors = {phase: phases.of(phase).learning_rate_factor for phase in Phase}
    rates = {phase: rate * factors[phase] for phase in Phase}
    briefs = all(math.isclose(rates[phase], _RATES[phase]) for phase in Phase)
    differs = _unlike(
        (briefs or rate == _RATES[0], "training.learning_rate", rate, f"{_RATES[0]:g}"),
        *(
            (
                briefs or math.isclose(factors[phase], _RATES[phase] / _RATES[0]),
                f"phases.{phase.key}.learning_rate_factor",
                factors[phase],
                f"{_RATES[phase] / _RATES[0]:g} (a rate of {_RATES[phase]:g}, not {rates[phase]:g})",
            )
            for phase in Phase
        ),
        *(
            (value == 1, f"training.{part}_learning_rate_factor", value, "1")
            for part, value in (
                ("gat", training.gat_learning_rate_factor),
                ("router", training.router_learning_rate_factor),
            )
        ),
        (0 < training.warmup_steps <= _WARMUP_STEPS, "training.warmup_steps", training.warmup_steps, "1 – 1000"),
        (training.cosine, "training.cosine", training.cosine, "true"),
        (training.cosine_floor < 1, "training.cosine_floor", training.cosine_floor, "below 1"),
    )
    played = min(certain_episodes(config), phases.warmup_until or math.inf) * config.environment.max_episode_steps
    most = int(played * training.ppo_epochs / training.batch_size)
    short = f"training.warmup_steps={training.warmup_steps}: the first phase has at most {most} optimiser steps"
    return Item(
        "learning_rate",
        "learning rate 1e-4",
        f"{' → '.join(f'{rates[phase]:g}' for phase in Phase)}, {training.warmup_steps} steps of warm-up, cosine",
        "pipeline.training.phases:learning_rate_at",
        differs,
        () if training.warmup_steps <= most else (short,),
    )


def _positive(config: ExperimentConfig, key: str, name: str, where: str) -> Item:
    """A term of the loss on the experts, whose sign is right."""
    value = getattr(config.training, f"{key}_coef")
    shown = f"training.{key}_coef"
    differs = _unlike((value > 0, shown, value, "above 0"), *_mixture(config))
    return Item(key, name, f"{shown}={value:g}", where, differs)


def _warm_up(config: ExperimentConfig) -> Item:
    phases = config.phases
    wanted = {Phase.WARMUP: "softmax", Phase.TRANSITION: "sparsemax", Phase.FINETUNE: "sparsemax"}
    routing = {phase: phases.of(phase).routing for phase in Phase}
    until = phases.warmup_until
    differs = _unlike(
        *((routing[each] == kind, f"phases.{each.key}.routing", routing[each], kind) for each, kind in wanted.items()),
        (until > 0, "phases.warmup_until", until, "above 0 (the brief: 1000)"),
        (config.policy.kind == "v3", "policy.kind", config.policy.kind, "v3"),
    )
    short = f"phases.warmup_until={until}: {_end(config)}, so sparsemax may never begin"
    return Item(
        "warm_up",
        "warm-up (softmax → sparsemax)",
        f"{' → '.join(routing.values())}, sparsemax from episode {until}",
        "pipeline.training.rollout:Collector",
        differs,
        (*_thin(config, Phase.WARMUP, until), *(() if until < certain_episodes(config) else (short,))),
    )


def _temperature(config: ExperimentConfig) -> Item:
    phases = config.phases
    start, end, until = phases.temperature_start, phases.temperature_end, phases.transition_until
    episodes = until - phases.warmup_until
    differs = _unlike(
        (start == 1.0, "phases.temperature_start", start, "1"),
        (end == 0.5, "phases.temperature_end", end, "0.5"),
        (episodes > 0, "phases.transition_until", until, f"above warmup_until={phases.warmup_until} (the brief: 3000)"),
        (config.policy.kind == "v3", "policy.kind", config.policy.kind, "v3"),
    )
    short = f"phases.transition_until={until}: {_end(config)}, so the temperature may not come down to {end:g}"
    return Item(
        "temperature",
        "temperature annealing",
        f"{start:g} → {end:g} over episodes {phases.warmup_until} – {until}",
        "pipeline.training.phases:temperature_at",
        differs,
        (*_thin(config, Phase.TRANSITION, episodes), *(() if until <= certain_episodes(config) else (short,))),
    )


def _thin(config: ExperimentConfig, phase: Phase, episodes: int) -> tuple[str, ...]:
    """What is so, where a phase is there, and too small a part of the run to be worth the name."""
    least = min(_EPISODES[phase], math.ceil(config.training.episodes / _LEAST_SHARE))
    if not 0 < episodes < least:
        return ()
    return (f"phases.{phase.key}_until leaves {phase.label} {episodes} of {config.training.episodes} episodes",)


def _monitor(config: ExperimentConfig) -> Item:
    """A rule that fails an attempt for each of the brief's problems; of another trainer, any rule that fails one."""
    rules, name = config.health.build(), f"health.rules={config.health.rules}"
    seen = {rule.verdict for rule in rules if rule.action == "fail"}
    if config.trainer.command is None:
        missing = [problem for problem in _PROBLEMS if problem not in seen]
    else:
        missing = [] if seen else ["any verdict"]
    differs = f"{name} and what is overridden have no failing rule for {', '.join(missing)}, allowed: one for each"
    return Item(
        "monitor",
        "TrainingMonitor",
        f"{name}, {len(rules)} rules",
        "pipeline.experiment.watchdog:Watchdog",
        (differs,) if missing else (),
    )


def _clipping(config: ExperimentConfig) -> Item:
    norm = config.training.max_grad_norm
    return Item(
        "clipping",
        "clipping at 1.0",
        f"training.max_grad_norm={norm:g}",
        "pipeline.training.ppo:PPO",
        _unlike((norm == 1.0, "training.max_grad_norm", norm, "1")),
    )


def _checkpoints(config: ExperimentConfig) -> Item:
    every = config.training.checkpoint_every_episodes
    return Item(
        "checkpoints",
        "checkpoint every 100 episodes",
        f"training.checkpoint_every_episodes={every}",
        "pipeline.training.checkpoint:write_checkpoint",
        _unlike((every <= 100, "training.checkpoint_every_episodes", every, "1 – 100")),
    )


def _entropy(config: ExperimentConfig) -> Item:
    """The signs of the terms that the checklist has no item for."""
    training = config.training
    names = ("entropy_coef", "alpha_entropy_coef", "critic_coef")
    values = {f"training.{name}": float(getattr(training, name)) for name in names}
    return Item(
        "entropy",
        "entropy of actions and of α",
        ", ".join(f"{key}={value:g}" for key, value in values.items()),
        "pipeline.training.losses:total_loss",
        _unlike(*((value > 0, key, value, "above 0") for key, value in values.items()), *_mixture(config)),
    )


def _encoder(config: ExperimentConfig) -> Item:
    """The brief's remedies of over-smoothing, and LayerNorm."""
    policy = config.policy
    graph = ("policy.graph", policy.graph, "true") if policy.kind == "v3" else ("policy.kind", policy.kind, "v3")
    differs = _unlike(
        (policy.has_graph, *graph),
        (policy.gat_layers <= 2, "policy.gat_layers", policy.gat_layers, "1 – 2"),
        (policy.gat_residual, "policy.gat_residual", policy.gat_residual, "true"),
        (0 < policy.gat_dropout <= 0.5, "policy.gat_dropout", policy.gat_dropout, "above 0, at most 0.5"),
        (policy.gat_layer_norm, "policy.gat_layer_norm", policy.gat_layer_norm, "true"),
        (not policy.gat_frozen, "policy.gat_frozen", policy.gat_frozen, "false"),
        (policy.attention_temperature == 1, "policy.attention_temperature", policy.attention_temperature, "1"),
    )
    summary = f"{policy.gat_layers} layers, residual, dropout {policy.gat_dropout:g}, LayerNorm"
    return Item("encoder", "graph encoder", summary, "pipeline.policy.gat:GraphEncoder", differs)


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
