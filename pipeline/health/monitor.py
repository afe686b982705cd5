"""From histories to findings: pure functions, the same for a live run, a finished run and a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.health.history import History
from pipeline.health.rules import AnyRule, Rule
from pipeline.health.verdict import Evidence, Verdict


@dataclass(frozen=True)
class Finding:
    """A rule that fired."""

    rule: AnyRule
    evidence: Evidence


def findings(history: History, rules: Iterable[AnyRule]) -> list[Finding]:
    """Every firing of every rule, by detection step; between equals in the order of the rules."""
    found = [Finding(rule, evidence) for rule in rules for evidence in rule.firings(history)]
    return sorted(found, key=lambda finding: finding.evidence.detection_step or 0)


def judge(history: History, rules: Sequence[AnyRule]) -> Verdict | None:
    """The verdict of the failing rule that fired first, or None while nothing has failed."""
    for finding in findings(history, rules):
        if finding.rule.action == "fail":
            return Verdict(name=finding.rule.verdict, evidence=(finding.evidence,))
    return None


def warnings(history: History, rules: Sequence[AnyRule]) -> list[Evidence]:
    """What rules with the action `warn` have found."""
    return [finding.evidence for finding in findings(history, rules) if finding.rule.action == "warn"]


def stirring(history: History, rules: Iterable[AnyRule]) -> list[AnyRule]:
    """The failing rules worth a closer look at the complete history: violated right now, or firing on what is known.

    `history` may have gaps (a poll sees only the latest values), so this decides nothing by itself.
    """
    stirred: list[AnyRule] = []
    for rule in rules:
        if rule.action != "fail":
            continue
        violated = isinstance(rule, Rule) and rule.violated_now(history)
        if violated or rule.firings(history):
            stirred.append(rule)
    return stirred
