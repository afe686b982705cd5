"""Which failure explains another: the verdict is the cause, not the consequence that was certain first.

Gradients that explode leave weights with which the encoder smooths everything and the router collapses. These are seen
after eight updates of ten, while the explosion itself may be over after one. So when a rule fires, the rules on its
causes are asked once more with half their patience.

A plateau is explained by nothing here. A policy that becomes certain takes a large step on its way there, and a score
stands still over a thousand episodes, in which much else happens.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.health.history import History
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence

EXPLAINS: dict[str, tuple[str, ...]] = {
    "numerical_instability": ("gat_oversmoothing", "expert_collapse"),
    "gradient_explosion": ("gat_oversmoothing", "expert_collapse"),
}
"""Verdict → what it explains; the first of several causes counts."""
REACH = 10
"""Reports before the onset of a failure from which on its cause is looked for, up to the detection."""


def cause(history: History, rule: Rule, evidence: Evidence, rules: Iterable[Rule]) -> tuple[Rule, Evidence] | None:
    """The failing rule that explains a rule that fired, with its evidence; None: the failure stands for itself.

    It looks at nothing after the detection, so it finds the same in a live run and in a finished one.
    """
    onset, detection = evidence.onset_step, evidence.detection_step
    if onset is None or detection is None or evidence.metric is None:
        return None
    steps = history.series(evidence.metric)[0]
    before = steps[steps < onset]
    first = int(before[-REACH:][0]) if len(before) else onset
    found = [
        (each, seen)
        for each in rules
        if each.action == "fail" and rule.verdict in EXPLAINS.get(each.verdict, ())
        if (seen := each.stirred(history, first, detection)) is not None
    ]
    order = list(EXPLAINS)
    return min(found, key=lambda pair: (order.index(pair[0].verdict), pair[1].onset_step or 0), default=None)
