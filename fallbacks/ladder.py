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
from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, newest
from pipeline.attempt.file import WarmStart
from pipeline.attempt.record import Attempt
from pipeline.attempt.start import FailedStart
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

    outcome: Literal["healthy", "exhausted", "interrupted", "error"]
    """error: the trainer cannot start, before a person has mended what `reason` says."""
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

        A start that cannot succeed is not tried on: see :func:`hopeless`. Where other rungs have started, the next one
        may; otherwise it is the end.
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
        below = self._below(index, last.verdict)
        hopelessly = hopeless(attempts)
        if hopelessly is not None and (below is None or hopelessly.everywhere):
            return End("error", f"the trainer cannot start: {hopelessly.words}")
        if last.verdict.is_infrastructure_failure and hopelessly is None:
            failures = _failures(attempts)
            if failures <= budget.retries:
                return self._retry(index, attempts, f"retry {failures} of {budget.retries} after {last.verdict.name}")
        if below is None:
            return End("exhausted", "no rung is left")
        rung, config = self.rungs[below], self.configs[below]
        start = healthy_start(attempts, config, rung) if self.base.ladder.warm_start and rung.warm_start else None
        return Plan(rung, config, start, f"after {last.verdict.name} of {last.rung}{_untrained(config, start)}")

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
        index = [rung.name for rung in self.rungs].index(last.rung)
        if last.verdict.name != "interrupted":
            follows = self.after(attempts)
            if isinstance(follows, End) and follows.outcome == "error":
                return self._retry(index, attempts, "its start is tried again")
            return follows
        plan = self._retry(index, attempts, "after an interruption")
        if last.config.trainer.command:
            return plan
        return replace(plan, continues=last.run_id, began_from=last.warm_start)

    def _retry(self, index: int, attempts: Sequence[Attempt], reason: str) -> Plan:
        """The same rung from its newest checkpoint; with less, such as half as many games, where memory ran out.

        If the trainer died as it loaded a checkpoint, the retry starts without that one.
        """
        last = attempts[-1]
        rung, config = self.rungs[index], last.config
        if last.verdict.name == "out_of_memory":
            config = smaller(config)
        start = last.warm_start
        if last.checkpoints:
            start = _exact(last, last.checkpoints)
        elif start is not None and FailedStart.of(last.verdict) is not None:
            start = _own_start(attempts)
            if start is None and self.base.ladder.warm_start:
                start = healthy_start(attempts, config, rung)
            reason += ", without the checkpoint that it was given"
        if start is not None and config != last.config:
            start = start.model_copy(update={"exact": False})  # the states of the games fit no other number of games
        return Plan(rung, config, start, reason)


def _written(rung: CustomRung) -> Rung:
    """The rung that the experiment's YAML describes."""
    return Rung(rung.name, "from YAML", setting(rung.set), warm_start=rung.warm_start)


def _untrained(config: ExperimentConfig, start: WarmStart | None) -> str:
    """What is to be said of a start from scratch whose graph encoder is never trained."""
    policy = config.policy
    fixed = not config.trainer.command and policy.has_graph and (policy.gat_frozen or policy.kind == "v2_gat")
    return "; there is no good checkpoint, so the graph encoder keeps its random weights" if fixed and not start else ""


def healthy_start(attempts: Sequence[Attempt], config: ExperimentConfig, rung: Rung) -> WarmStart | None:
    """The newest checkpoint that was healthy when it was written and stayed so until a failure began.

    It looks at the last attempt first, then at those before it. A checkpoint is still good if an attempt that started
    from it failed *later*, and is not if that attempt failed from its very first metrics. A checkpoint that the
    configuration cannot load is passed over.
    """
    guilty = _unloadable(attempts) | {
        attempt.warm_start.checkpoint
        for attempt in attempts
        if attempt.warm_start is not None and attempt.verdict.failed_from_the_start
    }
    for attempt in reversed(attempts):
        if _refused(attempt, attempts) and fingerprint(attempt.config) != fingerprint(config):
            continue
        fit = [
            checkpoint
            for checkpoint in attempt.checkpoints
            if attempt.verdict.trusts(checkpoint.step) and checkpoint.path not in guilty
        ]
        if fit and _loadable(attempt.config, config, rung):
            best = newest(fit)
            return WarmStart(checkpoint=best.path, run_id=attempt.run_id, episode=best.episode, carry=rung.carry)
    return None


@dataclass(frozen=True)
class Hopeless:
    """A start that another try would not mend."""

    words: str
    everywhere: bool
    """Whether no rung can start; False: another one has started."""


def hopeless(attempts: Sequence[Attempt]) -> Hopeless | None:
    """What keeps the last of these attempts from starting, if another try at its rung is in vain; None: it may succeed.

    It is in vain where the cause is certain, such as a script that does not exist, or where the attempt before died
    alike. A death by signal may pass, and one after a warm start may be the checkpoint's fault.
    """
    last, *earlier = reversed([each for each in attempts if each.verdict.name != "interrupted"])
    failed = FailedStart.of(last.verdict)
    if failed is None or failed.by_signal:
        return None
    before = earlier[0] if earlier else None
    alike = before is not None and last.warm_start is None and failed.is_like(FailedStart.of(before.verdict))
    if not failed.certain and not alike:
        return None
    started = any(FailedStart.of(each.verdict) is None for each in earlier)
    elsewhere = alike and before is not None and before.rung != last.rung
    words = f"{failed.words} (twice alike)" if alike and not failed.certain else failed.words
    return Hopeless(words, everywhere=elsewhere or not started)


def _failures(attempts: Sequence[Attempt]) -> int:
    """The infrastructure failures of the last attempt's rung. Failed starts before one that succeeded do not count."""
    failed = [each for each in attempts if each.rung == attempts[-1].rung and each.verdict.is_infrastructure_failure]
    starts = [FailedStart.of(each.verdict) is None for each in failed]
    last_start = max((index for index, started in enumerate(starts) if started), default=-1)
    return sum(started or index > last_start for index, started in enumerate(starts))


def _unloadable(attempts: Sequence[Attempt]) -> set[str]:
    """The checkpoints with which a trainer died before it had logged anything."""
    return {
        attempt.warm_start.checkpoint
        for attempt in attempts
        if attempt.warm_start is not None and FailedStart.of(attempt.verdict) is not None
    }


def _refused(source: Attempt, attempts: Sequence[Attempt]) -> bool:
    """Whether a trainer with another configuration died as it loaded a checkpoint of this attempt."""
    return any(
        each.warm_start is not None
        and each.warm_start.run_id == source.run_id
        and FailedStart.of(each.verdict) is not None
        and fingerprint(each.config) != fingerprint(source.config)
        for each in attempts
    )


def _own_start(attempts: Sequence[Attempt]) -> WarmStart | None:
    """The newest checkpoint that the last attempt's configuration has written itself, without those that killed it."""
    last, dead = attempts[-1], _unloadable(attempts)
    for attempt in reversed(attempts[:-1]):
        if attempt.config != last.config or attempt.verdict.is_training_failure:
            break
        if fit := [checkpoint for checkpoint in attempt.checkpoints if checkpoint.path not in dead]:
            return _exact(attempt, fit)
    return None


def _exact(attempt: Attempt, checkpoints: Sequence[Checkpoint]) -> WarmStart:
    """Going on from the newest of an attempt's checkpoints with its own configuration."""
    last = newest(checkpoints)
    return WarmStart(checkpoint=last.path, run_id=attempt.run_id, episode=last.episode, exact=True)


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
