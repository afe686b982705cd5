"""What the metrics say of a training that has died of an error: whether it had lost its numbers before."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.health.generic import GENERIC
from pipeline.health.history import History
from pipeline.health.nonfinite import NonFiniteRule
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence


def rules_at_death(rules: Iterable[Rule]) -> tuple[NonFiniteRule, ...]:
    """The rules on losses and gradients that are no numbers: the generic ones, as far as the run has no others."""
    named = {rule.name: rule for rule in (*GENERIC, *rules) if isinstance(rule, NonFiniteRule)}
    return tuple(rule for rule in named.values() if rule.action == "fail")


def broken_at_death(history: History, rules: Iterable[NonFiniteRule], *, of_names: bool) -> Evidence | None:
    """The first metric that had ceased to be a number when the training died; None: all were numbers.

    Args:
        of_names: it died of something that numbers do not cause by themselves, such as a file that is missing. Then
            what may be healthy is no reason: a metric that was never a number, or a single gradient that is none.
    """
    found = []
    for rule in rules:
        last = rule if of_names else rule.model_copy(update={"at_end": min(1, rule.at_end)})
        found += [each for each in last.at_exit(history) if each.last_good_step is not None or not of_names]
    return min(found, key=lambda each: each.onset_step or 0, default=None)
