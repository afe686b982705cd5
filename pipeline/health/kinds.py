"""The kinds of rule that can be written in YAML; the fields that are given say which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from pipeline.health.beside_random import BesideRandomRule
from pipeline.health.ceased import CeasedRule
from pipeline.health.collapse import CollapseRule
from pipeline.health.explosion import ExplosionRule
from pipeline.health.few_reports import FewReportsRule
from pipeline.health.flat import FlatRule
from pipeline.health.frozen import FrozenRule
from pipeline.health.no_gain import NoGainRule
from pipeline.health.nonfinite import NonFiniteRule
from pipeline.health.outset import OutsetRule
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Rule
from pipeline.health.still import StillRule
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.unfinished import UnfinishedRule
from pipeline.health.zero_rate import ZeroRateRule

KINDS: dict[str, type[Rule]] = {
    "kind:threshold": ThresholdRule,
    "kind:plateau": PlateauRule,
    "kind:explosion": ExplosionRule,
    "kind:collapse": CollapseRule,
    "kind:nonfinite": NonFiniteRule,
    "kind:frozen": FrozenRule,
    "kind:unfinished": UnfinishedRule,
    "kind:few": FewReportsRule,
    "kind:ceased": CeasedRule,
    "kind:outset": OutsetRule,
    "kind:nogain": NoGainRule,
    "kind:zerorate": ZeroRateRule,
    "kind:still": StillRule,
    "kind:besiderandom": BesideRandomRule,
    "kind:flat": FlatRule,
}
"""By their tags; the first of those that know most of the fields is meant."""


def tag_of(given: Any) -> str:
    """The tag of the kind that is meant by a mapping, or that a rule has."""
    if isinstance(given, Rule):
        return next((tag for tag, kind in KINDS.items() if type(given) is kind), "kind:threshold")
    if not isinstance(given, dict):
        return "kind:threshold"
    return max(KINDS, key=lambda tag: len(KINDS[tag].model_fields.keys() & given.keys()))


def fields_at(place: Sequence[Any]) -> list[str]:
    """The fields of the rule, or of its condition, at a place of a configuration (a location of pydantic's)."""
    if "conditions" in place:
        return list(Condition.model_fields)
    tagged = [KINDS[part] for part in place if part in KINDS]
    return list(dict.fromkeys(name for kind in tagged or KINDS.values() for name in kind.model_fields))


AnyRule = Annotated[
    Annotated[ThresholdRule, Tag("kind:threshold")]
    | Annotated[PlateauRule, Tag("kind:plateau")]
    | Annotated[ExplosionRule, Tag("kind:explosion")]
    | Annotated[CollapseRule, Tag("kind:collapse")]
    | Annotated[NonFiniteRule, Tag("kind:nonfinite")]
    | Annotated[FrozenRule, Tag("kind:frozen")]
    | Annotated[UnfinishedRule, Tag("kind:unfinished")]
    | Annotated[FewReportsRule, Tag("kind:few")]
    | Annotated[CeasedRule, Tag("kind:ceased")]
    | Annotated[OutsetRule, Tag("kind:outset")]
    | Annotated[NoGainRule, Tag("kind:nogain")]
    | Annotated[ZeroRateRule, Tag("kind:zerorate")]
    | Annotated[StillRule, Tag("kind:still")]
    | Annotated[BesideRandomRule, Tag("kind:besiderandom")]
    | Annotated[FlatRule, Tag("kind:flat")],
    Discriminator(tag_of),
]
