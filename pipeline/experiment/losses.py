"""How often an engine has taken the trainers of an experiment away without progress between."""

from __future__ import annotations

from pipeline.experiment.conclude import was_taken_away
from pipeline.health.verdict import Evidence, Verdict


class Losses:
    """Counts them. `most`: how many are borne before the next one counts as a crash, which spends a retry."""

    def __init__(self, most: int) -> None:
        self._most, self._count, self._step = most, 0, -1

    def judged(self, verdict: Verdict, step: int) -> Verdict:
        """The verdict of an attempt, or a crash where its trainers are taken away again and again.

        `step`: that of its newest checkpoint, -1 where it has none. A higher one than ever before is progress.
        """
        if not was_taken_away(verdict):
            self._count = 0
            return verdict
        if step > self._step:
            self._count, self._step = 0, step
        self._count += 1
        if self._count <= self._most:
            return verdict
        count, self._count = self._count, 0
        detail = {**verdict.evidence[0].detail, "times without progress": count}
        return Verdict(name="crash", evidence=(Evidence(rule="exit", detail=detail),))
