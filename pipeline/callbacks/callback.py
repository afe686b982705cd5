"""What is told of an experiment while it runs.

    experiment_started
        attempt_started
            progress …              at each poll
            warning …               what a rule with the action `warn` has found, when it arises
        attempt_ended
            warning …               what they find only when the attempt has ended
        …
    experiment_ended
    close

`message` may come at any time. What a callback raises ends no experiment: it is said once for each callback and kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fallbacks.ladder import Plan
from pipeline.attempt.record import UNKNOWN_QUALITY, Attempt, AttemptSummary
from pipeline.config import ExperimentConfig
from pipeline.errors import InfrastructureFailure
from pipeline.health.verdict import Evidence
from pipeline.processes.streams import complain

_log = logging.getLogger("ladder")


@dataclass(frozen=True)
class ExperimentStarted:
    """An experiment begins, or goes on."""

    config: ExperimentConfig
    parent: str
    """Its parent run's id."""
    uri: str
    """Of the store."""
    root: Path
    """The tracking root."""
    nested: bool
    """The parent run belongs to another program, such as a study."""
    stop: Callable[[str], None]
    """Asks for an end in good order, for the reason given: the attempt at work is then `interrupted`."""


@dataclass(frozen=True)
class ExperimentEnded:
    """Nothing more follows."""

    outcome: str
    """healthy, compared, exhausted, interrupted, or error."""
    reason: str
    settled_rung: str | None
    attempts: tuple[AttemptSummary, ...]
    metrics: Mapping[str, float]
    """Of the parent run."""
    random_score: Mapping[str, float] | None
    """The random baseline: metrics by name."""
    stopped: bool
    """The user has asked for the end, and wants it soon."""
    resume: str | None
    """The command that continues it, where it was interrupted."""
    quality: str = UNKNOWN_QUALITY
    """Whether the settled policy is better than random play: a value of the tag `ladder.quality`."""


class Callback:
    """Hears of one experiment. Every method does nothing until it is overridden."""

    def experiment_started(self, event: ExperimentStarted) -> None: ...

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None: ...

    def progress(self, latest: Mapping[str, float]) -> None:
        """`latest`: the newest value of every metric of the attempt."""

    def warning(self, evidence: Evidence) -> None:
        """What a rule with the action `warn` has found, or what is to be known beside the verdict; once an attempt."""

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        """Verdict and status are in the store already."""

    def experiment_ended(self, event: ExperimentEnded) -> None:
        """The parent run has ended already, unless it is another program's."""

    def message(self, text: str, *, error: bool = False) -> None:
        """What a person should know beside that, in one line."""

    def close(self) -> None:
        """Nothing more will be told."""


class CallbackList(Callback):
    """Tells several callbacks, in their order, and goes on where one fails. The store's errors pass through."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self._failed: set[tuple[int, type[Exception]]] = set()

    def _tell(self, call: Callable[[Callback], None]) -> None:
        for index, each in enumerate(self._callbacks):
            try:
                call(each)
            except InfrastructureFailure:
                raise
            except Exception as error:
                kind = (index, type(error))
                if kind not in self._failed:
                    self._failed.add(kind)
                    _log.exception("%s fails, and the experiment goes on", type(each).__name__)
                    complain(
                        f"{type(each).__name__} fails, and the experiment goes on: {type(error).__name__}: {error}"
                    )

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._tell(lambda each: each.experiment_started(event))

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        self._tell(lambda each: each.attempt_started(plan, number, run_id))

    def progress(self, latest: Mapping[str, float]) -> None:
        self._tell(lambda each: each.progress(latest))

    def warning(self, evidence: Evidence) -> None:
        self._tell(lambda each: each.warning(evidence))

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        self._tell(lambda each: each.attempt_ended(attempt, summary))

    def experiment_ended(self, event: ExperimentEnded) -> None:
        self._tell(lambda each: each.experiment_ended(event))

    def message(self, text: str, *, error: bool = False) -> None:
        self._tell(lambda each: each.message(text, error=error))

    def close(self) -> None:
        self._tell(lambda each: each.close())
