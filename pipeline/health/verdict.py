"""Verdicts: how an attempt ended, and the evidence."""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, field_serializer, field_validator
from pydantic_core import PydanticCustomError

TrainingVerdict = Literal[
    "expert_collapse",
    "router_indecision",
    "gat_oversmoothing",
    "gradient_explosion",
    "numerical_instability",
    "reward_plateau",
    "performance_collapse",
]
InfrastructureVerdict = Literal["crash", "hang", "out_of_memory", "unfinished"]
VerdictName = Literal["healthy", "interrupted"] | TrainingVerdict | InfrastructureVerdict

TRAINING_FAILURES: tuple[str, ...] = get_args(TrainingVerdict)
INFRASTRUCTURE_FAILURES: tuple[str, ...] = get_args(InfrastructureVerdict)
_OWN_RULE = "a rule of this experiment's own fired"
MEANINGS: dict[str, str] = {
    "healthy": "trained to the end; no rule fired",
    "expert_collapse": "one expert takes nearly all samples, or one is never chosen",
    "router_indecision": "the router stays near uniform and never decides",
    "gat_oversmoothing": "the graph encoder makes all nodes alike",
    "gradient_explosion": "gradients stay far above the run's own level, or have damaged the policy",
    "numerical_instability": "NaN or Inf that stay, or come back more often than rollback may mend",
    "reward_plateau": "the score has stopped rising, or cannot rise",
    "performance_collapse": "the score has lost most of what it had gained, for long",
    "crash": "the trainer process died",
    "hang": "the trainer process fell silent",
    "out_of_memory": "the trainer process ran out of memory",
    "unfinished": "the trainer process ended as if it were done, long before its `progress` was complete",
    "interrupted": "a person, or the budget, ended it",
}
_END, _TO_THE_END = "end", "trained to the end"
"""The rule and the words of the evidence that a training went on to its own end."""
_OF_SCRIPTS = {
    "gradient_explosion": "a loss, a gradient or another metric stays far above the level that is healthy for it",
    "numerical_instability": "a loss, a gradient or another metric is NaN or infinite",
    "reward_plateau": "the score has stopped rising",
    "expert_collapse": _OWN_RULE,
    "router_indecision": _OWN_RULE,
    "gat_oversmoothing": _OWN_RULE,
    "crash": "the script died",
    "hang": "the script fell silent",
    "out_of_memory": "the script ran out of memory",
    "unfinished": "the script ended as if it were done, long before its `progress` was complete",
}
"""The same of a trainer of the user's own, of which nothing is known but its metrics."""
MEANING = "meaning"
"""The detail of an evidence that says what a verdict of the experiment's own means."""
_NO_VERDICTS = (
    "healthy", "interrupted", "crash", "hang", "out_of_memory", "running", "error", "exhausted", "compared",
)  # fmt: skip
"""What a rule cannot find, and outcomes of other things."""


def meaning_of(verdict: str, *, script: bool = False) -> str:
    """What a verdict means, in words; also of one that a rule of the experiment's own has.

    `script`: of a trainer of the user's own.
    """
    known = MEANINGS | _OF_SCRIPTS if script else MEANINGS
    return known.get(verdict, _OWN_RULE)


def _for_a_rule(name: str) -> str:
    if name in _NO_VERDICTS:
        allowed = ", ".join(TRAINING_FAILURES)
        raise PydanticCustomError("verdict", "no rule can find this; allowed: {allowed}, or a name of your own",
                                  {"allowed": allowed})  # fmt: skip
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise PydanticCustomError("verdict", "a verdict is a name of small letters, digits and _")
    close = difflib.get_close_matches(name, [*MEANINGS], n=1, cutoff=0.85)
    if close and name != close[0]:
        raise PydanticCustomError("verdict", "unknown verdict, too close to {close} for one of your own",
                                  {"close": close[0]})  # fmt: skip
    return name


RuleVerdict = Annotated[str, AfterValidator(_for_a_rule)]
"""A training failure: one of :data:`TRAINING_FAILURES`, or a name of the experiment's own."""


class Evidence(BaseModel):
    """What a person can check: the rule, the values in its window, the threshold, and from which step to which."""

    model_config = ConfigDict(frozen=True)

    rule: str
    metric: str | None = None
    values: tuple[float, ...] = ()
    threshold: str = ""
    onset_step: int | None = None
    """First step (of the environment) at which the condition held."""
    last_good_step: int | None = None
    """Newest step before the onset whose metrics were healthy; None: there was none. A checkpoint of that very step is
    suspect already: the metrics after it measure its weights."""
    sound: tuple[tuple[int, int], ...] | None = None
    """Stretches of steps (first, end) before the decline began that led to the onset: weights that were saved from
    `first` on and before `end` were measured as normal in every monitored metric. None: this was not looked for."""
    sound_elsewhere: tuple[tuple[int, int], ...] = ()
    """The same, also within the decline, for every monitored metric but those of the part of the policy that fails."""
    detection_step: int | None = None
    detail: dict[str, Any] = {}

    def trusts(self, step: int, *, elsewhere: bool = False) -> bool:
        """Whether weights that were saved at this step were healthy, and the decline had not begun.

        `elsewhere`: whether those of the other parts of the policy were healthy.
        """
        if elsewhere:
            return any(first <= step < end for first, end in self.sound_elsewhere)
        if self.sound is not None:
            return any(first <= step < end for first, end in self.sound)
        return self.last_good_step is not None and step < self.last_good_step

    @property
    def began_bad(self) -> bool:
        """Whether no metrics before it were healthy."""
        return self.last_good_step is None or self.sound == ()

    @field_validator("values")
    @classmethod
    def _one_nan(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        """Every NaN as the same object, so that equal evidence is equal."""
        return tuple(value if value == value else math.nan for value in values)

    @field_validator("detail", mode="before")
    @classmethod
    def _as_numbers(cls, detail: Any) -> Any:
        return _with_nan(detail)

    @field_serializer("values", "detail", when_used="json")
    def _as_json(self, content: Any) -> Any:
        return _without_nan(content)

    def sentence(self) -> str:
        """One line for a terminal or a note."""
        if self.metric is None:
            told = {key: value for key, value in self.detail.items() if key not in ("log_tail", "certain", MEANING)}
            return ", ".join(
                str(value) if key in ("reason", "cause") else f"{key} {value}" for key, value in told.items()
            )
        last = f" {self.values[-1]:#.3g}" if self.values else ""
        return f"{self.metric}{last} ({self.threshold}), steps {self.onset_step} – {self.detection_step}"


def _without_nan(content: Any) -> Any:
    """The content with NaN, ∞ and −∞ as the words `NaN`, `Infinity` and `-Infinity`: JSON has no such numbers."""
    if isinstance(content, float) and not math.isfinite(content):
        return "NaN" if content != content else "Infinity" if content > 0 else "-Infinity"
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    return [_without_nan(each) for each in content] if isinstance(content, list | tuple) else content


def _with_nan(content: Any) -> Any:
    """The content with these words as numbers again."""
    if isinstance(content, dict):
        return {key: _with_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_nan(each) for each in content]
    return float(content) if content in ("NaN", "Infinity", "-Infinity") else content


class Verdict(BaseModel):
    """How an attempt ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    """One of :data:`VerdictName`, or the verdict of a rule of the experiment's own: a training failure."""
    evidence: tuple[Evidence, ...] = ()

    def trusts(self, step: int, *, elsewhere: bool = False) -> bool:
        """Whether weights that were saved at this step were healthy and stayed so until the failure began.

        `elsewhere`: whether those of the parts of the policy that did not fail were healthy.
        """
        if not self.is_training_failure:
            return True
        return all(each.trusts(step, elsewhere=elsewhere) for each in self.evidence)

    @property
    def failed_from_the_start(self) -> bool:
        """Whether no metrics of the attempt were ever healthy; the weights that it started from are suspect too."""
        return self.is_training_failure and any(each.began_bad for each in self.evidence)

    def after_its_end(self, step: int) -> Verdict:
        """The same of a training that went on to its own end, at this step, whatever the rules have found.

        What was saved before its newest metrics is as good as the other evidence says.
        """
        ended = Evidence(rule=_END, last_good_step=step, detection_step=step, detail={"reason": _TO_THE_END})
        return self.model_copy(update={"evidence": (*self.evidence, ended)})

    @property
    def trained_to_the_end(self) -> bool:
        """Whether the training ran to its own end: neither a verdict, nor a crash, nor a person has cut it short."""
        return self.name == "healthy" or any(each.rule == _END and each.metric is None for each in self.evidence)

    @property
    def detection_step(self) -> int | None:
        """The step at which the verdict was certain; a cause shows before what it explains."""
        return max((each.detection_step for each in self.evidence if each.detection_step is not None), default=None)

    @property
    def is_training_failure(self) -> bool:
        return self.name not in ("healthy", "interrupted") and not self.is_infrastructure_failure

    @property
    def is_infrastructure_failure(self) -> bool:
        return self.name in INFRASTRUCTURE_FAILURES

    def meaning(self, *, script: bool = False) -> str:
        """What the verdict means, in words; of one of the experiment's own, the `meaning` of the rule that has it.

        `script`: of a trainer of the user's own.
        """
        told = (each.detail.get(MEANING) for each in self.evidence if self.name not in MEANINGS)
        return next((str(each) for each in told if each), meaning_of(self.name, script=script))

    @property
    def sentence(self) -> str:
        return "; ".join(filter(None, (each.sentence() for each in self.evidence)))
