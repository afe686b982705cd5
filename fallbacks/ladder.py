"""The order of the rungs, and what follows a verdict. Pure functions of what has happened so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

from fallbacks.freeze_gat import FREEZE_GAT
from fallbacks.rung import Rung, setting
from fallbacks.smaller import smaller
from fallbacks.softmax_only import SOFTMAX_ONLY
from fallbacks.two_experts import TWO_EXPERTS
from fallbacks.v2_router_gat import V2_ROUTER_GAT
from fallbacks.v3 import V3
from pipeline.attempt.file import WarmStart
from pipeline.attempt.record import Attempt
from pipeline.config import RUNGS, CustomRung, ExperimentConfig
from pipeline.health.verdict import Verdict

BUILT_IN = {rung.name: rung for rung in (V3, FREEZE_GAT, SOFTMAX_ONLY, TWO_EXPERTS, V2_ROUTER_GAT)}
"""The rungs that ship, in their order, by name."""
if tuple(BUILT_IN) != RUNGS:  # the configuration may not import the rungs, and names them
    raise ImportError(f"RUNGS of pipeline/config.py names {RUNGS}, and fallbacks/ladder.py has {tuple(BUILT_IN)}")


@dataclass(frozen=True)
class Plan:
    """The next attempt."""

    rung: Rung
    config: ExperimentConfig
    warm_start: WarmStart | None
    reason: str
    continues: str | None = None
    """The run of the interrupted attempt that this one continues, as if nothing had happened."""
    began_from: WarmStart | None = None
    """Where the interrupted attempt itself started."""


@dataclass(frozen=True)
class End:
    """The end of the ladder: there is no next attempt."""

    outcome: Literal["healthy", "exhausted", "interrupted"]
    reason: str
    settled_rung: str | None = None


@dataclass(frozen=True)
class Ladder:
    """The rungs of an experiment on its base configuration.

    Raises:
        ValueError: a rung does not fit the base; the message begins with the key.
    """

    base: ExperimentConfig
    rungs: tuple[Rung, ...] = field(init=False)
    configs: tuple[ExperimentConfig, ...] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.base.ladder
        rungs = tuple(BUILT_IN[rung] if isinstance(rung, str) else _written(rung) for rung in settings.rungs)
        names = [rung.name for rung in rungs]
        if len(set(names)) != len(names):
            raise ValueError(f"ladder.rungs: names must differ, not {names}")
        configs = []
        for index, rung in enumerate(rungs):
            rung.check(self.base.policy)
            recipe = rungs[: index + 1] if settings.cumulative else (rung,)
            configs.append(reduce(lambda config, each: each.transform(config), recipe, self.base))
        object.__setattr__(self, "rungs", rungs)
        object.__setattr__(self, "configs", tuple(configs))

    def first(self) -> Plan:
        return Plan(self.rungs[0], self.configs[0], None, "the first rung")

    def after(self, attempts: Sequence[Attempt]) -> Plan | End:
        """What follows the last of these attempts, which has its verdict.

        Healthy or interrupted: the end. Infrastructure failure: the same rung again, exactly where it was, as long as
        the rung has retries left. Otherwise: the next rung, warm-started if possible.
        """
        last = attempts[-1]
        index = [rung.name for rung in self.rungs].index(last.rung)
        budget = self.base.budget
        if last.verdict.name == "healthy":
            return End("healthy", f"{last.rung} trained to the end", settled_rung=last.rung)
        if last.verdict.name == "interrupted":
            return End("interrupted", last.verdict.sentence)
        if sum(each.verdict.name != "interrupted" for each in attempts) >= budget.attempts:
            return End("exhausted", f"budget.attempts={budget.attempts} spent")
        if last.verdict.is_infrastructure_failure:
            failures = sum(each.rung == last.rung and each.verdict.is_infrastructure_failure for each in attempts)
            if failures <= budget.retries:
                return self._retry(index, last, f"retry {failures} of {budget.retries} after {last.verdict.name}")
        below = self._below(index, last.verdict)
        if below is None:
            return End("exhausted", "no rung is left")
        rung, config = self.rungs[below], self.configs[below]
        start = healthy_start(attempts, config, rung) if self.base.ladder.warm_start and rung.warm_start else None
        return Plan(rung, config, start, f"after {last.verdict.name} of {last.rung}")

    def _below(self, index: int, verdict: Verdict) -> int | None:
        """The index of the next rung (with `ladder.guided`: that addresses the verdict); None: none is left."""
        for below in range(index + 1, len(self.rungs)):
            addresses = self.rungs[below].addresses
            if not self.base.ladder.guided or not verdict.is_training_failure or addresses is None:
                return below
            if verdict.name in addresses:
                return below
        return None

    def resume(self, attempts: Sequence[Attempt]) -> Plan | End:
        """What follows when an experiment continues that was cut off after these attempts.

        If the last attempt was interrupted, it continues from its own last checkpoint, or from where it started. This
        project's trainer repeats bit for bit what it did after that checkpoint, so it continues in the same run.
        Another trainer may not, so it gets a new run beside the interrupted one.
        """
        if not attempts:
            return self.first()
        last = attempts[-1]
        if last.verdict.name != "interrupted":
            return self.after(attempts)
        index = [rung.name for rung in self.rungs].index(last.rung)
        plan = self._retry(index, last, "after an interruption")
        if last.config.trainer.command:
            return plan
        return replace(plan, continues=last.run_id, began_from=last.warm_start)

    def _retry(self, index: int, last: Attempt, reason: str) -> Plan:
        """The same rung from its newest checkpoint; with less, such as half as many games, where memory ran out."""
        rung, config = self.rungs[index], last.config
        if last.verdict.name == "out_of_memory":
            config = smaller(config)
        start = last.warm_start
        if last.checkpoints:
            newest = max(last.checkpoints, key=lambda checkpoint: checkpoint.step)
            start = WarmStart(checkpoint=newest.path, run_id=last.run_id, episode=newest.episode, exact=True)
        if start is not None and config != last.config:
            start = start.model_copy(update={"exact": False})  # the states of the games fit no other number of games
        return Plan(rung, config, start, reason)


def _written(rung: CustomRung) -> Rung:
    """The rung that the experiment's YAML describes."""
    return Rung(rung.name, "from YAML", setting(rung.set), warm_start=rung.warm_start)


def healthy_start(attempts: Sequence[Attempt], config: ExperimentConfig, rung: Rung) -> WarmStart | None:
    """The newest checkpoint that was healthy when it was written and stayed so until a failure began.

    It looks at the last attempt first, then at those before it. A checkpoint is still good if an attempt that started
    from it failed *later*, and is not if that attempt failed from its very first metrics. A checkpoint that the
    configuration cannot load is passed over.
    """
    guilty = {
        attempt.warm_start.checkpoint
        for attempt in attempts
        if attempt.warm_start is not None and attempt.verdict.failed_from_the_start
    }
    for attempt in reversed(attempts):
        fit = [
            checkpoint
            for checkpoint in attempt.checkpoints
            if attempt.verdict.trusts(checkpoint.step) and checkpoint.path not in guilty
        ]
        if fit and _loadable(attempt.config, config, rung):
            newest = max(fit, key=lambda checkpoint: checkpoint.step)
            return WarmStart(checkpoint=newest.path, run_id=attempt.run_id, episode=newest.episode, carry=rung.carry)
    return None


def _loadable(source: ExperimentConfig, target: ExperimentConfig, rung: Rung) -> bool:
    """Whether the weights of one configuration have the shapes that the other needs."""
    before, after = source.policy, target.policy
    encoder = ("hidden_size", "glyph_embedding", "gat_layers", "gat_heads", "gat_layer_norm")
    if any(getattr(before, key) != getattr(after, key) for key in encoder):
        return False
    if rung.carry.modules == ("gat",):
        return before.has_graph
    return (
        before.kind == after.kind
        and before.has_graph == after.has_graph
        and before.expert_size == after.expert_size
        and source.environment.crop_size == target.environment.crop_size
        and set(after.experts) <= set(before.experts)
    )
