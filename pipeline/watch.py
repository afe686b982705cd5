"""Watching one attempt: cheap polls of the latest values, a closer look at histories only when something stirs."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.health.history import History
from pipeline.health.monitor import judge, stirring, warnings
from pipeline.health.rules import AnyRule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking import Store


class Watch:
    """Follows a run's metrics in the store.

    A poll is one call whose cost does not grow with the run. What it sees is judged by the rules; a rule that stirs
    gets the complete histories of its own metrics, and only those decide. The verdict is then that of all rules on the
    complete histories: the same that a finished run would get, whichever steps the polls have happened to see.
    """

    def __init__(self, store: Store, run_id: str, rules: Sequence[AnyRule]) -> None:
        self._store, self._run_id, self.rules = store, run_id, rules
        self.last_step = -1
        self._last_seen: dict[str, tuple[int, float, int]] = {}
        self._last_news = time.monotonic()  # does not count the time that a laptop sleeps
        self.latest: dict[str, float] = {}

    def poll(self) -> Verdict | None:
        """Looks once; a verdict if a failing rule has fired.

        Raises:
            InfrastructureFailure: the store cannot be reached.
        """
        latest = self._store.latest(self._run_id)
        if latest == self._last_seen:
            return None
        self._last_seen, self._last_news = latest, time.monotonic()
        before, self.latest = self.latest, {name: value for name, (_, value, _) in latest.items()}
        self.last_step = max(step for step, _, _ in latest.values())
        stirred = stirring(self.latest, before, self.rules)
        if not stirred or judge(self.history(stirred), stirred) is None:
            return None
        return self.final()[0]  # another rule may have fired before, at a step that no poll has seen

    def silence(self) -> float:
        """Seconds since the run last said something new."""
        return time.monotonic() - self._last_news

    def final(self) -> tuple[Verdict | None, list[Evidence]]:
        """The verdict on the complete histories, and the warnings."""
        history = self.history(self.rules)
        return judge(history, self.rules), warnings(history, self.rules)

    def history(self, rules: Sequence[AnyRule]) -> History:
        """The complete histories of the metrics of some rules, and the phases."""
        return self._store.history(
            self._run_id, dict.fromkeys(["phase", *(name for rule in rules for name in rule.metrics)])
        )
