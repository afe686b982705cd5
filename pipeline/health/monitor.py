"""Pure functions from histories to findings, the same for a live run, a finished run and a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.health.cause import cause
from pipeline.health.history import History
from pipeline.health.onset import with_start
from pipeline.health.rule import ANY, Rule
from pipeline.health.verdict import MEANING, MEANINGS, Evidence, Verdict

LOGGED_WERE = "; logged were "
_LONGEST = 300
"""Characters of a rule's meaning that go with its evidence."""
_NAMED, _NEAR = 12, 0.5
"""Names that a sentence lists, and how alike two names must be for one to be meant by the other."""


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


def rules_for(rules: Sequence[Rule], *, warm_start: bool) -> tuple[Rule, ...]:
    """The rules by which a training is judged, which may have begun from a checkpoint."""
    return tuple(rule for rule in rules if not (warm_start and rule.of_beginnings))


def judge(history: History, rules: Sequence[Rule], *, ended: bool = False) -> Verdict | None:
    """The verdict of the failing rule that fired first, or None while nothing has failed.

    Where another rule explains that one, the verdict is the cause's, and the evidence is of both, the cause first.
    """
    for finding in findings(history, rules, ended=ended):
        if finding.rule.action == "fail":
            explained = cause(history, finding.rule, finding.evidence, rules)
            chain = [*([Finding(*explained)] if explained else []), finding]
            evidence = (with_start(history, each.rule, _with_meaning(each), rules) for each in chain)
            return Verdict(name=chain[0].rule.verdict, evidence=tuple(evidence))
    return None


def foreseen(history: History, rules: Iterable[Rule]) -> Verdict | None:
    """The verdict that may come: that of the rule whose incident began first and has half of its patience by now."""
    found = []
    for rule in rules:
        steps = history.aligned(rule.metrics)[0]
        if len(steps) and (evidence := rule.stirred(history, int(steps[-1]), int(steps[-1]))) is not None:
            found.append((evidence.onset_step or 0, rule.verdict, evidence))
    if not found:
        return None
    _, name, evidence = min(found, key=lambda each: each[0])
    return Verdict(name=name, evidence=(evidence,))


def _with_meaning(finding: Finding) -> Evidence:
    """The evidence; where the verdict is one of the experiment's own, with what the rule says that it means."""
    meaning = " ".join(finding.rule.meaning.split())[:_LONGEST].rstrip(". ")
    if finding.rule.verdict in MEANINGS or not meaning:
        return finding.evidence
    return finding.evidence.model_copy(update={"detail": {**finding.evidence.detail, MEANING: meaning}})


def warnings(history: History, rules: Sequence[Rule], *, ended: bool = False) -> list[Evidence]:
    """The evidence of every firing of the rules with the action `warn`."""
    return [finding.evidence for finding in findings(history, rules, ended=ended) if finding.rule.action == "warn"]


def never_judged(history: History, logged: Iterable[str], rules: Iterable[Rule]) -> dict[str, str]:
    """Rule → why it has never been judged, for the rules that have not: a sentence without its subject.

    Args:
        history: all values of the rules' metrics.
        logged: the names of all metrics that were logged, of these rules or not.
    """
    names = sorted(logged)
    found = {}
    for rule in rules:
        if missing := rule.absent(names):
            if taken := rule.taken_out(names):
                found[rule.name] = f"its `without` takes out every metric that its words name: {_listed(taken)}"
            else:
                found[rule.name] = never_logged(missing, names)
        elif rule.metrics and not len(history.aligned(rule.metrics)[0]) and not rule.firings(history):
            empty = [name for name in rule.metrics if not len(history.aligned([name])[0])]
            together = " and ".join(rule.metrics)
            found[rule.name] = (
                f"metric {', '.join(empty)} was never anything but NaN"
                if empty
                else f"metrics {together} were never logged at the same step, and it compares values of one step"
            )
    return found


def never_logged(missing: Sequence[str], logged: Sequence[str]) -> str:
    """A sentence on metrics that a run lacks, with those that it has: the nearest spellings first."""
    near = list(dict.fromkeys(each for name in missing for each in get_close_matches(name, logged, 3, _NEAR)))
    best = dict.fromkeys(each for name in missing for each in get_close_matches(name, logged, 1, _NEAR))
    nearest = f"; nearest: {', '.join(best)}" if best else ""
    more = f"{LOGGED_WERE}{_listed(list(dict.fromkeys([*near, *logged])))}" if logged else "; nothing was logged"
    return f"{_never_logged(missing)}{nearest}{more}"


def _never_logged(missing: Sequence[str]) -> str:
    """That these metrics were never logged, in words."""
    first, *more = missing
    if first.startswith(ANY):
        return f"no {first.removeprefix(ANY)} was ever logged" + (f"; nor {', '.join(more)}" if more else "")
    return f"metric{'s' if more else ''} {', '.join(missing)} {'were' if more else 'was'} never logged"


def _listed(names: Sequence[str]) -> str:
    """Names in a line; of many the first."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


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
