"""The page of an experiment: under the tracking root while it runs, an artifact of its parent run when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from fallbacks.ladder import Plan
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.callbacks.callback import Callback, ExperimentEnded, ExperimentStarted
from pipeline.callbacks.rewriting import Rewriting
from pipeline.compare.command import PAGE, log_page, running_page
from pipeline.compare.live import end_reloading
from pipeline.tracking.store import Store


class PageWriter(Callback):
    """Writes the page again and again while attempts run, and for good at the end.

    At the end there is none where the user has asked for the end and would have to wait for it. After an error of this
    program's own there is none either: the store, or the disk, may be what fails. That a trainer cannot start is no
    such error, and the page has its cause. Where there is none, the last page that was written says that nothing runs.

    Args:
        complain: called with one line where the page could not be made.
        live: whether it is written while attempts run too. Of experiments that run at a time, one has the file.
    """

    def __init__(self, store: Store, complain: Callable[[str], None], *, live: bool = True) -> None:
        self._store, self._complain, self._live = store, complain, live
        self._parent: str | None = None
        self._rewriting: Rewriting | None = None

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._parent = None if event.nested else event.parent
        if self._parent is not None and self._live:
            self._rewriting = Rewriting(
                running_page(self._store, self._parent), self._store.root / PAGE, self._complain
            )

    def attempt_started(self, plan: Plan, number: int, run_id: str) -> None:
        if self._rewriting is not None:
            self._rewriting.attempt_started()

    def attempt_ended(self, attempt: Attempt, summary: AttemptSummary) -> None:
        if self._rewriting is not None:
            self._rewriting.attempt_ended()

    def experiment_ended(self, event: ExperimentEnded) -> None:
        self._end()
        failed = event.outcome == "error" and event.resume is None
        if self._parent and event.attempts and not failed and not event.stopped:
            log_page(self._store, self._parent, self._complain)
        if self._parent:
            end_reloading(self._store.root / PAGE, self._parent, event.outcome)

    def close(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._rewriting is not None:
            self._rewriting.end()
