"""What is told of an experiment while it runs.

    experiment_started
        attempt_started
            progress …              at each poll
        attempt_ended
            warning …               what the rules with the action `warn` have found
        …
    experiment_ended
    close

`message` may come at any time. A callback that must not fail says so itself: an exception ends the experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fallbacks.ladder import Plan
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence


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
    """healthy, exhausted, interrupted, or error."""
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


class Callback:
    """Hears of one experiment. Every method does nothing until it is overridden."""

    def experiment_started(self, event: ExperimentStarted) -> None: ...

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None: ...

    def progress(self, latest: Mapping[str, float]) -> None:
        """`latest`: the newest value of every metric of the attempt."""

    def warning(self, evidence: Evidence) -> None: ...

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        """Verdict and status are in the store already."""

    def experiment_ended(self, event: ExperimentEnded) -> None:
        """The parent run has ended already, unless it is another program's."""

    def message(self, text: str, *, error: bool = False) -> None:
        """What a person should know beside that, in one line."""

    def close(self) -> None:
        """Nothing more will be told."""


class CallbackList(Callback):
    """Tells several callbacks, in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def experiment_started(self, event: ExperimentStarted) -> None:
        for each in self._callbacks:
            each.experiment_started(event)

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        for each in self._callbacks:
            each.attempt_started(plan, number, run_id)

    def progress(self, latest: Mapping[str, float]) -> None:
        for each in self._callbacks:
            each.progress(latest)

    def warning(self, evidence: Evidence) -> None:
        for each in self._callbacks:
            each.warning(evidence)

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        for each in self._callbacks:
            each.attempt_ended(attempt, summary)

    def experiment_ended(self, event: ExperimentEnded) -> None:
        for each in self._callbacks:
            each.experiment_ended(event)

    def message(self, text: str, *, error: bool = False) -> None:
        for each in self._callbacks:
            each.message(text, error=error)

    def close(self) -> None:
        for each in self._callbacks:
            each.close()
