"""The workers of one machine: started, replaced when they are killed, stopped in an orderly way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EXIT_EXHAUSTED, EXIT_HEALTHY, EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED, InfrastructureFailure
from pipeline.launchers.local import PRELOADED
from pipeline.processes.group import ProcessGroup, start_leashed
from pipeline.processes.signals import heeded
from pipeline.processes.zygote import Zygote

WORKER = "pipeline.tuning.worker"
RESTARTS = 5
"""Most restarts of one worker that was killed or lost its storage."""
_POLL_SECONDS = 0.5
PATIENCE_SECONDS, PATIENCE_WITH_CLUSTER_SECONDS = 40.0, 120.0
"""Time that a worker has to stop: it gives its own trainer time to write a checkpoint, and a cluster time to end it."""


@dataclass
class _Worker:
    number: int
    job: ProcessGroup
    code: int | None = None
    """Exit code, once the worker is not started again."""
    restarts: int = 0
    due: float | None = None
    """Monotonic time of the next start; None while the process lives or has ended for good."""


class WorkerPool:
    """A number of processes with the same assignment.

    Args:
        count: number of processes.
        assignment: what each process reads from its standard input.
        folder: where the processes' logs go, `worker-N.log`.
        say: called with news for the user.
        modules: what the workers need, imported once for all of them.
        patience: seconds that they have to stop.
    """

    def __init__(
        self,
        count: int,
        assignment: str,
        folder: Path,
        say: Callable[[str], None],
        modules: Sequence[str],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience = patience
        self._count, self._assignment, self._folder, self._say = count, assignment, folder, say
        self._modules = (WORKER, *modules)
        self._workers: list[_Worker] = []
        self._asked_to_stop = threading.Event()

    def run(self, on_poll: Callable[[int], None]) -> bool:
        """Runs the workers until all are done; returns False if the user asked to stop.

        The workers die with this process, however it ends.

        Args:
            on_poll: called every half second with the number of workers that are at work.

        Raises:
            InfrastructureFailure: no worker could go on.
        """
        with heeded(self._asked_to_stop), contextlib.ExitStack() as cleanup:
            self._zygote = Zygote(self._modules)
            cleanup.callback(self._zygote.close)
            for number in range(self._count):
                if self._asked_to_stop.is_set():
                    break
                worker = _Worker(number, self._start(number))
                self._workers.append(worker)
                cleanup.callback(self._kill, worker)
            while not self._asked_to_stop.is_set() and (at_work := self._at_work()):
                on_poll(at_work)
                time.sleep(_POLL_SECONDS)
                for worker in self._workers:
                    self._look_after(worker)
            self._end_in_order()
        gone = [worker for worker in self._workers if worker.code in (EXIT_INFRASTRUCTURE, EXIT_EXHAUSTED)]
        if not self._asked_to_stop.is_set() and len(gone) == len(self._workers):
            raise InfrastructureFailure(_last_words(gone[-1].job.log))
        return not self._asked_to_stop.is_set() and all(worker.code != EXIT_INTERRUPTED for worker in self._workers)

    def _at_work(self) -> int:
        return sum(worker.code is None for worker in self._workers)

    def _start(self, number: int) -> ProcessGroup:
        log = self._folder / f"worker-{number}.log"
        nested = set(PRELOADED) <= set(self._modules)  # then a worker forks its trainers
        options = {"environment": os.environ, "output": log, "given": self._assignment, "nested": nested}
        if (forked := self._zygote.start(WORKER, **options)) is not None:
            return ProcessGroup(forked, log)
        process = start_leashed([sys.executable, "-P", "-m", WORKER], log, stdin=subprocess.PIPE)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(self._assignment.encode())
        return ProcessGroup(process, log)

    def _look_after(self, worker: _Worker) -> None:
        if worker.due is not None:
            if time.monotonic() >= worker.due:
                worker.due, worker.job = None, self._start(worker.number)
            return
        if worker.code is not None or (code := worker.job.wait(0)) is None:
            return
        if code in (EXIT_HEALTHY, EXIT_INTERRUPTED, EXIT_EXHAUSTED):
            worker.code = code
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended: {_last_words(worker.job.log)}"
        if worker.restarts == RESTARTS:
            worker.code = EXIT_INFRASTRUCTURE
            return
        worker.restarts += 1
        self._say(f"worker {worker.number} {how}; restart {worker.restarts} of {RESTARTS}")
        # A killed worker is replaced at once. A worker without its storage waits longer each time, a minute in all.
        worker.due = time.monotonic() + (0 if code < 0 else 2**worker.restarts)

    def _end_in_order(self) -> None:
        for worker in self._workers:
            if worker.code is None:
                worker.job.terminate()
        until = time.monotonic() + self._patience
        for worker in self._workers:
            if worker.code is None:
                worker.code = worker.job.wait(max(0.0, until - time.monotonic()))

    def _kill(self, worker: _Worker) -> None:
        worker.job.kill()


def _last_words(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()]
        if lines:
            return lines[-1].removeprefix("worker: ")
    return "without a word"
