"""The section `health`: which rules judge a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.config.section import Positive, Section, sequence
from pipeline.health.kinds import AnyRule
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import RULE_SETS


def _within(error: ValidationError, *place: str) -> ValidationError:
    """The same error, of something that stands at this place."""
    lines: list[InitErrorDetails] = []
    for each in error.errors(include_url=False):
        kind = each["type"]
        context = each.get("ctx", {})
        problem = PydanticCustomError("verdict", "{words}", {"words": each["msg"]}) if kind == "verdict" else kind
        lines.append({"type": problem, "loc": (*place, *each["loc"]), "input": each["input"], "ctx": context})
    return ValidationError.from_exception_data(error.title, lines)


class HealthSection(Section):
    rules: Literal["v3", "seed", "generic", "none"] | None = None
    """`v3`: calibrated on healthy runs of this project's trainer. `seed`: the brief's thresholds, literally.
    `generic`: for any training, by the names of its metrics. `none`: only `extra` (docs/health.md).
    Default: `v3`, and `generic` with a `trainer.command`."""
    override: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Fields of rules to change, by the rule's name: `{reward_plateau: {window_episodes: 400}}`. With `generic` and
    `none`, a rule of `v3` that is named here is in force too."""
    extra: tuple[AnyRule, ...] = sequence(())
    """Rules of your own on any logged metric, of any kind."""
    poll_seconds: Positive = 3.0

    @model_validator(mode="after")
    def _buildable(self) -> HealthSection:
        self.build()
        return self

    def build(self) -> tuple[Rule, ...]:
        """The rules in force: the set by name, with its overrides, and the extra ones.

        Before the default is known, any rule that ships may be changed.
        """
        rules: dict[str, Rule] = {rule.name: rule for rule in RULE_SETS[self.rules or "generic"]}
        own = self.rules in ("v3", "seed")
        others = {} if own else {rule.name: rule for rule in RULE_SETS["v3"]}
        for name, changes in self.override.items():
            rule = rules.get(name, others.get(name))
            if rule is None:
                raise ValueError(f"override.{name}: unknown rule; allowed: {', '.join({**rules, **others})}")
            try:
                rules[name] = type(rule).model_validate({**rule.model_dump(), **changes})
            except ValidationError as error:
                raise _within(error, "override", name) from None
        names = [*(rule.name for rule in rules.values()), *(rule.name for rule in self.extra)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            written = sum(rule.name == twice for rule in self.extra)
            set_name = self.rules or "generic"
            taken = f"the name of {written} of them" if written > 1 else f"the name of a rule of the set {set_name}"
            raise ValueError(f"extra: the names of rules must differ; {twice} is {taken}")
        return (*rules.values(), *self.extra)

    @property
    def chosen(self) -> tuple[Rule, ...]:
        """The rules that the user has written or changed."""
        own = {*self.override, *(rule.name for rule in self.extra)}
        return tuple(rule for rule in self.build() if rule.name in own)
