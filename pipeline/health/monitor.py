"""From histories to findings: pure functions, the same for a live run, a finished run and a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.health.history import History
from pipeline.health.rules import AnyRule
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


def stirring(latest: Mapping[str, float], before: Mapping[str, float], rules: Iterable[AnyRule]) -> list[AnyRule]:
    """The failing rules worth a look at the complete history, from the newest values of this poll and of the last.

    This decides nothing by itself. A rule that needs several violations fires at one of them, so to look whenever the
    newest value is one is enough; what happens between two polls is seen at the next violation, or at the end.
    """
    return [rule for rule in rules if rule.action == "fail" and rule.stirs(latest, before)]
