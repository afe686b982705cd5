"""The page of an experiment, as an artifact of its parent run when the experiment has ended."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.callbacks.callback import Callback, ExperimentEnded, ExperimentStarted
from pipeline.compare.command import log_page
from pipeline.tracking.store import Store


class PageWriter(Callback):
    """Writes the page, unless the user has asked for the end and would have to wait for it.

    After an error of this program's own there is none: the store, or the disk, may be what fails. That a trainer
    cannot start is no such error, and the page has its cause.

    Args:
        complain: called with one line where the page could not be made.
    """

    def __init__(self, store: Store, complain: Callable[[str], None]) -> None:
        self._store, self._complain = store, complain

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._parent = None if event.nested else event.parent

    def experiment_ended(self, event: ExperimentEnded) -> None:
        failed = event.outcome == "error" and event.resume is None
        if self._parent and event.attempts and not failed and not event.stopped:
            log_page(self._store, self._parent, self._complain)
