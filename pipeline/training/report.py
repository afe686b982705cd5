"""What a trainer says of itself: on its own disk at once, in the store as soon as that answers."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from pipeline.attempt import RUN_VARIABLE, URI_VARIABLE
from pipeline.tracking.patience import STORE_THREAD
from pipeline.tracking.spool import Spool, SpoolWriter

log = logging.getLogger("trainer")
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 5.0
"""Before a store that is out of reach is asked again."""


class Reporter:
    """Writes each report to the attempt's folder; a thread delivers them to the environment's run, in order.

    Training never waits for the store: one that is locked, slow or away costs nothing but time until the curves are
    seen. What is not delivered when this process ends is on the disk, and the orchestrator delivers it.
    """

    def __init__(self, folder: Path, reported_step: int | None = None) -> None:
        self._spool = Spool(folder)
        self._writer = SpoolWriter(self._spool, reported_step)
        self._uri, self._run_id = os.environ[URI_VARIABLE], os.environ[RUN_VARIABLE]
        self._news = threading.Event()
        self._closing = threading.Event()
        self._news.set()  # an attempt that is continued may have something left
        self._thread = threading.Thread(target=self._deliver, name=STORE_THREAD, daemon=True)
        self._thread.start()

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        """Raises: OSError, the disk is full."""
        if self._writer.write(metrics, step):
            self._news.set()

    def close(self, seconds: float) -> None:
        """Waits until everything is delivered, or so long; nothing can be reported any more."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)

    def _deliver(self) -> None:
        # MLflow takes seconds to import: meanwhile the first games are played.
        from pipeline.tracking.store import TrainerRun

        run, away_since, wait = TrainerRun(self._uri, self._run_id), None, _FIRST_WAIT_SECONDS
        while True:
            self._news.wait()
            self._news.clear()
            closing = self._closing.is_set()
            while (pending := self._spool.pending())[0]:
                try:
                    run.send(pending[0])
                except Exception as error:  # whatever it is, it must not end the training
                    if away_since is None:
                        away_since = time.monotonic()
                        log.warning(
                            "the store is out of reach, metrics are kept here: %s", " ".join(str(error).split())
                        )
                    if closing or self._closing.wait(wait):
                        return
                    wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
                    continue
                self._spool.mark(pending[1])
                if away_since is not None:
                    log.info("the store is back after %.0f s", time.monotonic() - away_since)
                    away_since, wait = None, _FIRST_WAIT_SECONDS
            if closing:
                return
