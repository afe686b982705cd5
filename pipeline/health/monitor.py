"""Pure functions from histories to findings, the same for a live run, a finished run and a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.health.history import History
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict


@dataclass(frozen=True)
class Finding:
    """A rule that fired."""

    rule: Rule
    evidence: Evidence


def findings(history: History, rules: Iterable[Rule], *, ended: bool = False) -> list[Finding]:
    """Every firing of every rule, by detection step; at the same step in the order of the rules.

    `ended`: the training has ended by itself, as if it had been done.
    """
    found = [
        Finding(rule, evidence)
        for rule in rules
        for evidence in rule.firings(history) or (rule.at_exit(history) if ended else ())
    ]
    return sorted(found, key=lambda finding: finding.evidence.detection_step or 0)


def judge(history: History, rules: Sequence[Rule], *, ended: bool = False) -> Verdict | None:
    """The verdict of the failing rule that fired first, or None while nothing has failed."""
    for finding in findings(history, rules, ended=ended):
        if finding.rule.action == "fail":
            return Verdict(name=finding.rule.verdict, evidence=(finding.evidence,))
    return None


def warnings(history: History, rules: Sequence[Rule], *, ended: bool = False) -> list[Evidence]:
    """The evidence of every firing of the rules with the action `warn`."""
    return [finding.evidence for finding in findings(history, rules, ended=ended) if finding.rule.action == "warn"]


def stirring(latest: Mapping[str, float], before: Mapping[str, float], rules: Iterable[Rule]) -> list[Rule]:
    """The failing rules that deserve a look at the complete history.

    This decides nothing by itself, and it may miss a violation between two polls. A rule that needs several violations
    fires at one of them, so a look at each newest value that is one finds it; the judgement at the end of the attempt
    finds the rest.

    Args:
        latest: the newest value of each metric at this poll.
        before: the newest values at the last poll.
    """
    return [rule for rule in rules if rule.action == "fail" and rule.stirs(latest, before)]
