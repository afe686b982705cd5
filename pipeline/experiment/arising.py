"""Warnings while an attempt runs: the rules with the action `warn`, each told once, soon after it has fired.

What a rule finds only when the training has ended (`Rule.at_exit`) is told at the end, with all warnings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from pipeline.errors import InfrastructureFailure
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence
from pipeline.tracking import tags
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store

_EVERY_SECONDS = 30.0
"""Between two looks at the histories, while there is news."""
_REST = 200.0
"""A look that took a second is not repeated for so many."""
_log = logging.getLogger("ladder")


class Arising:
    """Judges the rules with the action `warn` of an attempt that runs.

    The run's tag `ladder.warnings` has what was told, so that an orchestrator that resumes the attempt goes on there.
    """

    def __init__(self, store: Store, watch: Watchdog) -> None:
        self._store, self._watch = store, watch
        self._open = [rule for rule in watch.rules if rule.action == "warn"]
        self._told: list[Evidence] | None = None
        self._heard, self._due = 0, 0.0
        self._failed: set[str] = set()

    def look(self) -> list[Evidence]:
        """What the rules have found since the last look: the first finding of each rule, once in an attempt.

        It ends nothing: while the store does not answer, it finds nothing, and looks again later.
        """
        began, heard = time.monotonic(), self._watch.heard
        if not self._open or heard == self._heard or began < self._due:
            return []
        try:
            found = self._look()
            self._heard = heard
        except InfrastructureFailure:  # the next poll says what that means
            found = []
        except Exception as error:
            self._note("the rules that warn", error)
            found = []
        now = time.monotonic()
        self._due = now + max(_EVERY_SECONDS, _REST * (now - began))
        return found

    def _look(self) -> list[Evidence]:
        told = self._told_before() if self._told is None else self._told
        said = {each.rule for each in told}
        rules = [rule for rule in self._open if rule.name not in said]
        found = self._firings(self._watch.history(rules, once=True), rules) if rules else []
        if found:
            self._store.set_tags(self._watch.run_id, {tags.WARNINGS: warnings_tag([*told, *found])}, once=True)
        self._told = [*told, *found]
        said |= {each.rule for each in found}
        self._open = [rule for rule in rules if rule.name not in said]
        return found

    def _told_before(self) -> list[Evidence]:
        """What an orchestrator before this one has told."""
        run = self._store.run(self._watch.run_id, once=True)
        return list(run.warnings) if isinstance(run, AttemptRun) else []

    def _firings(self, history: History, rules: Sequence[Rule]) -> list[Evidence]:
        """The first finding of each rule that has one, by detection step."""
        found = []
        for rule in rules:
            try:
                found += rule.firings(history)[:1]
            except Exception as error:
                self._note(f"rule {rule.name}", error)
        return sorted(found, key=lambda each: each.detection_step or 0)

    def _note(self, what: str, error: Exception) -> None:
        if what not in self._failed:
            self._failed.add(what)
            _log.warning("%s cannot be judged while the attempt runs: %s: %s", what, type(error).__name__, error)
