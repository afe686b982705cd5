"""A rule on trainings that have ended before there was anything to judge."""

from __future__ import annotations

from pydantic import Field

from pipeline.health.gain import FEW
from pipeline.health.history import History
from pipeline.health.of_each import AtTheEnd
from pipeline.health.verdict import Evidence, RuleVerdict


class FewReportsRule(AtTheEnd):
    """Fires at the end of a training whose metrics were all reported so rarely that no other rule could judge them.

    NaN alone is seen at once. What else goes wrong is seen by comparison with the run's own past, which a few reports
    are not. So "healthy" then means no more than that the script ended with exit code 0.
    """

    verdict: RuleVerdict = "reward_plateau"
    enough: int = Field(default=FEW, ge=2)
    """Reports of one of the metrics with which something can be judged."""

    def condition(self) -> str:
        return f"{self.shown} and every other one of them has fewer than {self.enough} reports"

    def persistence(self) -> str:
        return "when the training has ended with exit code 0"

    def at_exit(self, history: History) -> list[Evidence]:
        counts = {metric: len(self.judged(history, metric)[1]) for metric in self.meant(history)}
        metric = max(counts, key=lambda name: counts[name], default=None)
        if metric is None or not 0 < (most := counts[metric]) < self.enough:
            return []
        steps, values = self.judged(history, metric)
        times = "once" if most == 1 else f"{most} times"
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=tuple(values.tolist()),
                threshold=f"reported {times}, and no other loss or score more often: nothing but NaN could be judged",
                onset_step=int(steps[0]),
                last_good_step=int(steps[-1]),
                detection_step=int(steps[-1]),
            )
        ]

    def explain(self, history: History) -> str:
        most = max((len(self.judged(history, metric)[1]) for metric in self.meant(history)), default=0)
        return f"{most} reports of one of them at most"
