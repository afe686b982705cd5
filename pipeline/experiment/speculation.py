"""A place in the queue for the next attempt, held as soon as the present one begins to fail (`ladder.speculate`).

A rule needs its condition so many times before it is certain. When half of that is there, or when a run has been silent
for half the time that counts as a hang, the next attempt's job is queued. It is taken by whatever attempt the verdict
leads to. Where no verdict comes, the place is given up, and nothing of it is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fallbacks.ladder import End, Ladder, Plan
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.record import Attempt
from pipeline.health.verdict import Verdict
from pipeline.launchers.base import Launcher

MOST = 3
"""Places that are held in vain in one attempt; then no more are."""


class Speculation:
    """Holds places for the attempts of one experiment, one at a time.

    Args:
        tell: called with what becomes of a place.
    """

    def __init__(self, ladder: Ladder, launcher: Launcher, tell: Callable[[str], None]) -> None:
        self._ladder, self._launcher, self._tell = ladder, launcher, tell
        settings = ladder.base.ladder
        self._on = settings.speculate and not settings.compares
        self._since: float | None = None
        """When the present place was asked for; None: there is none."""
        self._told = False
        self._run, self._in_vain = "", 0

    def foresee(self, file: AttemptFile, earlier: Sequence[Attempt], verdict: Verdict | None) -> None:
        """Takes note of the verdict that the attempt at work may get; None: nothing says that it fails."""
        if not self._on:
            return
        if file.run_id != self._run:
            self._run, self._in_vain = file.run_id, 0
        if self._since is None and (
            verdict is None or self._in_vain >= MOST or not self._follows(file, earlier, verdict)
        ):
            return
        if verdict is None:
            self._in_vain += 1
            self._give_up("nothing stirs any more")
            return
        self._since = self._since or time.monotonic()
        holder = self._launcher.hold_place(file.where, own=file.command is None)
        if holder is not None and not self._told:
            self._told = True
            self._tell(f"{verdict.name} may come ({verdict.sentence}): {holder} holds a place for the next attempt")

    def settle(self, step: Plan | End) -> None:
        """The attempt has its verdict, and this follows."""
        if isinstance(step, End):
            self._give_up(step.outcome)
        elif self._since is not None:
            if self._told:
                self._tell(f"the next attempt takes the place that was held for {time.monotonic() - self._since:.0f} s")
            self._since, self._told = None, False

    def close(self) -> None:
        """No attempt follows any more."""
        if self._on:
            self._launcher.give_up_place()

    def _give_up(self, why: str) -> None:
        if self._since is not None:
            self._launcher.give_up_place()
            if self._told:
                self._tell(f"{why}: the place for the next attempt is given up")
            self._since, self._told = None, False

    def _follows(self, file: AttemptFile, earlier: Sequence[Attempt], verdict: Verdict) -> bool:
        """Whether an attempt would follow this verdict."""
        return isinstance(self._ladder.after([*earlier, Attempt.of(file, verdict)]), Plan)
