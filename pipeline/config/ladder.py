"""The sections `ladder` and `preflight`: the rungs, and what `ladder check` has to accept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Section, sequence
from pipeline.health.rule import Name

_WHOLE_EXPERIMENT = ("experiment", "ladder", "preflight", "tracking", "notify", "launcher", "budget", "faults")
"""Sections that no rung can change."""


class CustomRung(Section):
    """A rung written in YAML: `{name: smaller_steps, set: {training.learning_rate: 1e-5}}`."""

    name: Name
    set: dict[str, Any]
    """Keys and their values. Empty for a first rung that is the experiment as it stands."""
    warm_start: bool = True
    """Continue from the newest healthy checkpoint, if `ladder.warm_start` says so too. False: from scratch, as for a
    network of another size."""

    @model_validator(mode="after")
    def _about_training(self) -> CustomRung:
        for key in self.set:
            if key.split(".")[0] in _WHOLE_EXPERIMENT:
                raise ValueError(f"set: {key} belongs to the whole experiment; a rung cannot change it")
        return self


RUNGS = ("v3", "freeze_gat", "softmax_only", "two_experts", "v2_router_gat")
"""The names of the built-in rungs, in their order. `fallbacks/ladder.py` has the rungs and refuses to differ."""
AS_IT_STANDS = "v3"
"""The built-in rung that sets no key. The others set keys of this project's own trainer."""


class LadderSection(Section):
    rungs: Annotated[tuple[Literal[RUNGS] | CustomRung, ...], Field(min_length=1)] = sequence(RUNGS)  # type: ignore[valid-type]
    """From the most ambitious to the safest; the first one is where the experiment starts. Default with a
    `trainer.command`: `v3` alone, which is the experiment as it stands."""
    cumulative: bool = False
    """Each rung on top of the ones before it, instead of each on the base configuration."""
    until: Literal["healthy", "end"] = "healthy"
    """When the ladder ends: `healthy`, with the first attempt that is; `end`, when every rung has been trained to its
    end, whatever became of those before it. With `end` a rule's verdict stops no attempt, no remedy is tried, and
    `guided` skips no rung."""
    guided: bool = False
    """Skip the rungs that cannot remove the cause of the verdict; the order stays."""
    warm_start: bool | None = None
    """Continue from the newest healthy checkpoint; otherwise every rung starts from scratch. Default: true, and false
    with `until: end`. There, true lets all rungs start from one checkpoint of the first (docs/ladder.md)."""
    remedies: Annotated[int, Field(ge=0)] = 1
    """How many of the brief's remedies are tried on a rung that failed, before the next rung (docs/ladder.md). 0: the
    rungs alone. Default with a `trainer.command`: 0, since remedies set keys of this project's own trainer."""
    speculate: bool = False
    """On a cluster, hold a place in the queue for the next attempt as soon as a rule has half of its patience, or a run
    has been silent for half of `budget.hang_after_seconds`. It is given up where no verdict comes (docs/cluster.md).
    With `until: end` it has no effect."""

    @model_validator(mode="after")
    def _starts_as_it_ends(self) -> LadderSection:
        if self.warm_start is None:
            object.__setattr__(self, "warm_start", not self.compares)
        return self

    @property
    def compares(self) -> bool:
        """Whether every rung is trained to its end."""
        return self.until == "end"

    @model_validator(mode="after")
    def _every_rung_changes_something(self) -> LadderSection:
        for rung in self.rungs[1:]:
            if isinstance(rung, CustomRung) and not rung.set and rung.warm_start:
                raise ValueError(f"rungs: set: the rung {rung.name} sets no key, so it would change nothing")
        return self


PREFLIGHT_ITEMS = (
    "learning_rate", "load_balance", "diversity", "warm_up", "temperature", "nan_rollback", "monitor", "clipping",
    "logits", "checkpoints", "entropy", "encoder",
)  # fmt: skip
"""The names of what `ladder check` looks at. `pipeline/preflight.py` has the items and refuses to differ."""


class PreflightSection(Section):
    accept: tuple[Literal[PREFLIGHT_ITEMS], ...] = sequence(())  # type: ignore[valid-type]
    """Items of the brief's checklist from which the experiment differs on purpose. `ladder run` refuses a V3 experiment
    of this project's trainer that differs in any other."""
