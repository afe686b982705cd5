"""A rule on trainings that have ended with a score, and whose losses are all where they began."""

from __future__ import annotations

from pydantic import Field

from pipeline.health.gain import LEAST, gain
from pipeline.health.history import History
from pipeline.health.names import SCORES, has_word
from pipeline.health.of_each import AtTheEnd
from pipeline.health.verdict import Evidence, RuleVerdict


class StillRule(AtTheEnd):
    """Fires at the end of a training none of whose metrics that are meant has moved, in either direction.

    A score that rises is no proof that a network has learnt: exploration that fades out raises it too, and so does an
    environment that becomes easier. What a network has learnt shows in its losses and in its estimates of value.
    A network that is tuned further looks alike, so it is a rule for a warning. Without a score it says nothing: the
    losses of even adversaries stand still too.
    """

    verdict: RuleVerdict = "reward_plateau"
    moved_below: float = Field(default=0.05, gt=0)
    """Share of the mean by which a metric's first and last third may differ."""
    scores: tuple[str, ...] = SCORES
    """Words of the scores, of which there must be one."""

    @property
    def of_beginnings(self) -> bool:
        return True

    def condition(self) -> str:
        share = f"{self.moved_below:.0%} of its mean"
        return f"{self.shown} and every other one of them has moved by less than {share}, from first third to last"

    def persistence(self) -> str:
        return f"from the start to the end, {LEAST} reports and more"

    def _moves(self, history: History) -> dict[str, float]:
        """By what share of its mean each metric with enough reports has moved."""
        found = {}
        for metric in self.meant(history):
            if (each := gain(self.judged(history, metric)[1])) is not None:
                level = abs(each.first + each.last) / 2
                found[metric] = abs(each.last - each.first) / level if level > 0 else 0.0
        return found

    def at_exit(self, history: History) -> list[Evidence]:
        moves = self._moves(history) if any(has_word(name, self.scores) for name in history.metrics) else {}
        if not moves or max(moves.values()) >= self.moved_below:
            return []
        metric = max(moves, key=lambda name: moves[name])
        steps, values = self.judged(history, metric)
        return [
            Evidence(
                rule=self.name,
                metric=metric,
                values=tuple(values[-10:].tolist()),
                threshold=f"moved by {moves[metric]:.1%} of its mean from the first third to the last, "
                f"the others by less (moved_below={self.moved_below:g})",
                onset_step=int(steps[0]),
                last_good_step=None,
                detection_step=int(steps[-1]),
            )
        ]

    def explain(self, history: History) -> str:
        return ", ".join(f"{metric} moved by {share:.1%}" for metric, share in list(self._moves(history).items())[:3])
