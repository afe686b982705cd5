"""What a health rule is, whatever its kind.

A kind of rule is one file: a subclass of `Rule`, as `threshold.py` and `plateau.py` are. `rule_sets.py` names the rules
that ship, and `tests/health/conformance.py` holds what every kind must pass. Callers ask a rule through this interface
and never ask which kind it is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.health.history import History
from pipeline.health.phase import Phase
from pipeline.health.verdict import Evidence, RuleVerdict

NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
ANY = "any "
"""How a rule begins to name the metrics that it judges by a pattern or by words."""
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
"""What becomes a file's name, or a part of a metric's."""


class Data(BaseModel):
    """Frozen, finite, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Description(NamedTuple):
    """A rule in words, as `docs/health.md` has it; metrics stand in backticks."""

    condition: str
    when: str
    """How often the condition must hold, and in which phases."""


@dataclass(frozen=True)
class Curves:
    """One metric of a rule over the steps of a run: one panel of the picture of a finding."""

    metric: str
    steps: np.ndarray
    """(n,) environment steps, ascending."""
    values: np.ndarray
    """(n,) values of the metric."""
    limits: tuple[np.ndarray, ...] = ()
    """Bounds of the rule, (n,) each; NaN where there is no bound."""
    trend: tuple[tuple[int, float], tuple[int, float]] | None = None
    """Both ends, as (step, value), of the line that the rule has fitted."""
    noisy: bool = False
    """Single values say little; the picture adds their running mean."""


def between(values: np.ndarray) -> str:
    """The extremes of some values in words, and how many of them are not finite."""
    finite = values[np.isfinite(values)]
    extremes = f"{finite.min():.3g} – {finite.max():.3g}" if len(finite) else "never finite"
    odd = len(values) - len(finite)
    return f"{extremes} ({odd} not finite)" if odd and len(finite) else extremes


class Rule(Data, ABC):
    """A condition on the metrics of a run that means a verdict.

    A subclass adds its thresholds as fields. It is a pure function of histories: the same history gives the same
    findings.
    """

    name: Name
    verdict: RuleVerdict
    phases: tuple[int, ...] | None = None
    """The numbers of the phases in which the rule judges; None: all."""
    action: Literal["warn", "fail"] = "fail"
    meaning: str = ""
    """What a bad value looks like, and what to do."""

    @property
    @abstractmethod
    def watched(self) -> tuple[str, ...]:
        """The metrics of the condition."""

    @abstractmethod
    def condition(self) -> str:
        """What must hold, in words; metrics stand in backticks."""

    @abstractmethod
    def persistence(self) -> str:
        """How often it must hold before the rule fires, in words."""

    @abstractmethod
    def firings(self, history: History) -> list[Evidence]:
        """Every incident in which the rule fires, oldest first, with the evidence at the moment it does."""

    @abstractmethod
    def explain(self, history: History) -> str:
        """Why the rule did not fire on a history that has all its metrics, in one line."""

    @abstractmethod
    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        """What the picture of a finding shows, one panel for each metric."""

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        """Whether the newest values are reason enough to judge the complete history.

        It must be True wherever the rule may fire at the newest values, and may be True elsewhere.

        Args:
            latest: the newest value of each metric.
            before: the values that were the newest when the run was last looked at.
        """
        return all(metric in latest for metric in self.metrics)

    @property
    def of_beginnings(self) -> bool:
        """Whether it means a training from its beginning: what goes on from a checkpoint may have nothing to gain."""
        return False

    @property
    def of_lineage(self) -> bool:
        """Whether it judges what a training continues from too: the `past` of its history."""
        return False

    @property
    def patient(self) -> bool:
        """Whether it may be judged less often than its newest values ask for: it stirs at nearly every one of them."""
        return False

    def stirred(self, history: History, first: int, last: int) -> Evidence | None:
        """The evidence of an incident for which half the patience is enough, and which lasts at some step in a range.

        A rule that fired on what may be a consequence asks this of the rules on its causes. What comes after the last
        step of the range has no say in it.
        """
        return None

    def at_exit(self, history: History) -> list[Evidence]:
        """What it finds in the history of a training that has ended by itself, if it has not fired before."""
        return []

    def worsening(self, history: History, evidence: Evidence) -> Mapping[str, int]:
        """The metrics that got worse on their way into the condition: 1 where larger is worse, −1 where smaller is.

        Empty: the condition comes at once, or the rule itself finds the last good step.
        """
        return {}

    def held(self, history: History) -> list[tuple[np.ndarray, np.ndarray]]:
        """Steps (n,) and whether the condition holds there (n,), however briefly; one pair for each metric it judges.

        Empty: what it looks for says nothing of the weights at one step.
        """
        return []

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        """The metrics that a judgement looks at, of a run that has logged metrics of these names."""
        return self.metrics

    @property
    def least_episodes(self) -> int:
        """How many episodes must end, in phases that the rule judges, before it can fire; 0: any number will do."""
        return 0

    def title(self, evidence: Evidence) -> str:
        """What the picture of a finding has as its title, in one line."""
        return evidence.threshold

    def at_once(self) -> Rule:
        """The rule without persistence, which fires as soon as its condition holds; itself where a kind has none."""
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that a judgement needs, without repetition."""
        return tuple(dict.fromkeys((*self.watched, *(() if self.phases is None else ("phase",)))))

    def describe(self) -> Description:
        """The rule in words."""
        where = "" if self.phases is None else ", in " + ", ".join(Phase(phase).label for phase in self.phases)
        return Description(self.condition(), self.persistence() + where)

    def absent(self, names: Collection[str]) -> tuple[str, ...]:
        """The metrics that a judgement needs, of a run that has logged metrics of these names alone."""
        return tuple(metric for metric in self.metrics if metric not in names)

    def taken_out(self, names: Collection[str]) -> tuple[str, ...]:
        """Of these names, those that the rule would judge if it did not leave them out itself."""
        return ()

    def missing(self, history: History) -> tuple[str, ...]:
        """The metrics that a judgement needs and the history lacks."""
        return self.absent(history.metrics)


def has_fallen_due(latest: Mapping[str, float], before: Mapping[str, float], every: int) -> bool:
    """Whether a check that is made every so many episodes has fallen due between two looks at the newest values."""
    since, now = before.get("episodes", 0.0), latest["episodes"]
    if not math.isfinite(now) or not math.isfinite(since):
        return True
    return now // every > since // every
