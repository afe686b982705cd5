"""The order of the rungs, and what follows a verdict. Pure functions of what has happened so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

from fallbacks.freeze_gat import FREEZE_GAT
from fallbacks.remedies import REMEDIES, remedy_for
from fallbacks.remedies.remedy import Remedy
from fallbacks.rung import Rung, setting
from fallbacks.smaller import smaller
from fallbacks.softmax_only import SOFTMAX_ONLY
from fallbacks.two_experts import TWO_EXPERTS
from fallbacks.v2_router_gat import V2_ROUTER_GAT
from fallbacks.v3 import V3
from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, newest
from pipeline.attempt.file import WarmStart
from pipeline.attempt.record import Attempt, label_of
from pipeline.attempt.start import FailedStart
from pipeline.config import RUNGS, CustomRung, ExperimentConfig, difference
from pipeline.health.verdict import Verdict

BUILT_IN = {rung.name: rung for rung in (V3, FREEZE_GAT, SOFTMAX_ONLY, TWO_EXPERTS, V2_ROUTER_GAT)}
"""The rungs that ship, in their order, by name."""
if tuple(BUILT_IN) != RUNGS:  # the configuration may not import the rungs, and names them
    raise ImportError(f"RUNGS of the configuration names {RUNGS}, and fallbacks/ladder.py has {tuple(BUILT_IN)}")


@dataclass(frozen=True)
class Plan:
    """The next attempt."""

    rung: Rung
    config: ExperimentConfig
    warm_start: WarmStart | None
    reason: str
    remedy: str | None = None
    """The remedy that is tried on the rung; None: the rung as it is."""
    continues: str | None = None
    """The run of the interrupted attempt that this one continues, as if nothing had happened."""
    began_from: WarmStart | None = None
    """Where the interrupted attempt itself started."""

    @property
    def label(self) -> str:
        """Rung and remedy."""
        return label_of(self.rung.name, self.remedy)


@dataclass(frozen=True)
class End:
    """The end of the ladder: there is no next attempt."""

    outcome: Literal["healthy", "compared", "exhausted", "interrupted", "error"]
    """compared: every rung has had its turn (`ladder.until: end`), and one at least was trained to its end. error: the
    trainer cannot start, before a person has mended what `reason` says."""
    reason: str
    settled_rung: str | None = None


@dataclass(frozen=True)
class Tried:
    """A remedy that was tried on a rung, from the checkpoint of an episode."""

    rung: str
    remedy: Remedy
    episode: int


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
        for rung in rungs:
            rung.check(self.base.policy)
        object.__setattr__(self, "rungs", rungs)
        object.__setattr__(self, "configs", tuple(self._configured(index, ()) for index in range(len(rungs))))

    def _configured(self, index: int, tried: Sequence[Tried]) -> ExperimentConfig:
        """A rung's configuration, after these remedies were tried on the rungs before.

        What they restored stays so, on every rung: a setting far from the brief's would be the next failure's cause as
        well. What else they changed held for their own rung, unless the ladder is cumulative.
        """
        config = reduce(lambda config, each: each.remedy.restored(config), tried, self.base)
        if not self.base.ladder.cumulative:
            return self.rungs[index].transform(config)
        for rung in self.rungs[: index + 1]:
            config = rung.transform(config)
            for each in tried:
                if each.rung == rung.name:
                    config = each.remedy.applied(config, each.episode)
        return config

    def first(self) -> Plan:
        return Plan(self.rungs[0], self.configs[0], None, "the first rung")

    def after(self, attempts: Sequence[Attempt]) -> Plan | End:
        """What follows the last of these attempts, which has its verdict.

        Healthy or interrupted: the end. Infrastructure failure: the same rung again, exactly where it was, as long as
        the rung has retries left. Failure of the training: the verdict's remedy on the same rung, if it may try one
        more. Otherwise: the next rung, warm-started if possible.

        A start that cannot succeed is not tried on: see :func:`hopeless`. Where other rungs have started, the next one
        may; otherwise it is the end.

        With `ladder.until: end` the next rung follows a healthy attempt too, and no remedy comes between.
        """
        last = attempts[-1]
        index = [rung.name for rung in self.rungs].index(last.rung)
        budget = self.base.budget
        compares = self.base.ladder.compares
        if last.verdict.name == "healthy" and not compares:
            return End("healthy", f"{last.label} trained to the end", settled_rung=last.rung)
        if last.verdict.name == "interrupted":
            return End("interrupted", last.verdict.sentence)
        below = self._below(index, last.verdict)
        done = last.verdict.trained_to_the_end or last.verdict.is_training_failure
        if compares and below is None and done:
            return self._compared(attempts)
        if sum(each.verdict.name != "interrupted" for each in attempts) >= budget.attempts:
            return End("exhausted", f"budget.attempts={budget.attempts} spent")
        hopelessly = hopeless(attempts)
        if hopelessly is not None and (below is None or hopelessly.everywhere):
            return End("error", f"the trainer cannot start: {hopelessly.words}")
        if last.verdict.is_infrastructure_failure and hopelessly is None:
            failures = _failures(attempts)
            if failures <= budget.retries:
                return self._retry(index, attempts, f"retry {failures} of {budget.retries} after {last.verdict.name}")
        if (plan := self._remedied(index, attempts)) is not None:
            return plan
        if below is None:
            return self._compared(attempts) if compares else End("exhausted", "no rung is left")
        rung, config = self.rungs[below], self._configured(below, _tried(attempts))
        if compares:
            start = self._same_start(attempts, below, config)
            reason = f"rung {below + 1} of {len(self.rungs)}"
            why = () if self.base.ladder.warm_start else ("every rung starts from scratch",)
            return Plan(rung, config, start, f"{reason}{_untrained(config, start, *why)}")
        start = healthy_start(attempts, config, rung) if self.base.ladder.warm_start and rung.warm_start else None
        kept = difference(self.configs[below], config)
        reason = f"after {last.verdict.name} of {last.label}" + (f"; it keeps {', '.join(kept)}" if kept else "")
        return Plan(rung, config, start, f"{reason}{_untrained(config, start)}")

    def _compared(self, attempts: Sequence[Attempt]) -> End:
        """The end when every rung has had its turn."""
        ended = {each.rung for each in attempts if each.verdict.trained_to_the_end}
        reason = f"{len(ended)} of {len(self.rungs)} rungs trained to the end"
        if missing := [rung.name for rung in self.rungs if rung.name not in ended]:
            reason += f", not {', '.join(missing)}"
        return End("compared" if ended else "exhausted", reason)

    def _same_start(self, attempts: Sequence[Attempt], index: int, config: ExperimentConfig) -> WarmStart | None:
        """With `ladder.until: end`: the checkpoint of the first rung from which every other one starts; None: scratch.

        It is the newest healthy one of the first half, so that there is something left to train. What the rungs
        between have come to plays no part. One that this rung could not load is passed over.
        """
        rung, first = self.rungs[index], self.rungs[0]
        if index == 0 or not self.base.ladder.warm_start or not rung.warm_start:
            return None
        last = max(
            (point.episode for each in attempts if each.rung == first.name for point in each.checkpoints), default=0
        )
        early = [
            replace(each, checkpoints=tuple(point for point in each.checkpoints if 2 * point.episode <= last))
            for each in attempts
            if each.rung == first.name
        ]
        refused = [replace(each, checkpoints=()) for each in attempts if each.rung == rung.name]
        return healthy_start([*early, *refused], config, rung)

    def _remedied(self, index: int, attempts: Sequence[Attempt]) -> Plan | None:
        """The same rung with the remedy for the last verdict; None: there is none, or the rung may try no more.

        It comes on top of the remedies that the rung has tried. After the same verdict once more it is not repeated.
        """
        last, rung = attempts[-1], self.rungs[index]
        remedy = remedy_for(last.verdict.name) if last.verdict.is_training_failure else None
        names = {each.remedy for each in attempts if each.rung == last.rung and each.remedy is not None}
        without = last.config.trainer.command or self.base.ladder.compares
        most = 0 if without else self.base.ladder.remedies
        if remedy is None or remedy.name in names or len(names) >= most or not remedy.fits(last.config.policy):
            return None
        start = self._start_on(index, attempts, remedy.applied(last.config, 0), remedy)
        config = remedy.applied(last.config, start.episode if start is not None else 0)
        return Plan(rung, config, start, f"the remedy for {last.verdict.name} of {last.label}", remedy=remedy.name)

    def _start_on(
        self, index: int, attempts: Sequence[Attempt], config: ExperimentConfig, remedy: Remedy | None
    ) -> WarmStart | None:
        """Where a rung starts once more: from its own newest healthy checkpoint, else as it would have at first."""
        if not self.base.ladder.warm_start:
            return None
        if self.base.ladder.compares:
            return self._same_start(attempts, index, config)
        rung = self.rungs[index]
        if remedy is not None:
            own = [each for each in attempts if each.rung == rung.name]
            start = healthy_start(own, config, replace(rung, carry=remedy.carry))
            if start is None and (carry := remedy.carry_from_decline) is not None:
                start = healthy_start(own, config, replace(rung, carry=carry), elsewhere=True)
            if start is not None:
                return start
        return healthy_start(attempts, config, rung) if rung.warm_start else None

    def _below(self, index: int, verdict: Verdict) -> int | None:
        """The index of the next rung (with `ladder.guided`: that addresses the verdict); None: none is left."""
        for below in range(index + 1, len(self.rungs)):
            addresses = self.rungs[below].addresses
            if (
                self.base.ladder.compares
                or not self.base.ladder.guided
                or not verdict.is_training_failure
                or addresses is None
            ):
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
            if start is None:
                start = self._start_on(index, attempts, config, REMEDIES.get(last.remedy or ""))
            reason += ", without the checkpoint that it was given"
        if start is not None and config != last.config:
            start = start.model_copy(update={"exact": False})  # the states of the games fit no other number of games
        return Plan(rung, config, start, reason, remedy=last.remedy)


def _tried(attempts: Sequence[Attempt]) -> list[Tried]:
    """The remedies that were tried, in their order, each once on each rung."""
    found: dict[tuple[str, str], Tried] = {}
    for each in attempts:
        if each.remedy is not None and each.remedy in REMEDIES:
            episode = each.warm_start.episode if each.warm_start is not None else 0
            found.setdefault((each.rung, each.remedy), Tried(each.rung, REMEDIES[each.remedy], episode))
    return list(found.values())


def _written(rung: CustomRung) -> Rung:
    """The rung that the experiment's YAML describes."""
    return Rung(rung.name, "from YAML", setting(rung.set), warm_start=rung.warm_start)


def _untrained(config: ExperimentConfig, start: WarmStart | None, why: str = "there is no good checkpoint") -> str:
    """What is to be said of a start from scratch whose graph encoder is never trained."""
    policy = config.policy
    fixed = not config.trainer.command and policy.has_graph and (policy.gat_frozen or policy.kind == "v2_gat")
    return f"; {why}, so the graph encoder keeps its random weights" if fixed and not start else ""


def healthy_start(
    attempts: Sequence[Attempt], config: ExperimentConfig, rung: Rung, *, elsewhere: bool = False
) -> WarmStart | None:
    """The newest checkpoint that was healthy when it was written and stayed so until a failure began.

    It looks at the last attempt first, then at those before it. A checkpoint is still good if an attempt that started
    from it failed *later*, and is not if that attempt failed from its very first metrics. A checkpoint that the
    configuration cannot load is passed over. `elsewhere`: the part of the policy that failed does not count, because it
    is not taken over.
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
            if attempt.verdict.trusts(checkpoint.step, elsewhere=elsewhere) and checkpoint.path not in guilty
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
