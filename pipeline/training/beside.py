"""A worker in a process of its own, forked from a trainer that has imported what both need."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.config import TrainingSection
from pipeline.processes.leash import call_itself, die_with_parent

if TYPE_CHECKING:
    from pipeline.training.worker import Part

_PATIENCE_SECONDS = 5.0
_FOR_THE_TRAINER = (signal.SIGINT, signal.SIGTERM)
"""Sent to the whole process group; the trainer finishes its update and then closes its workers."""


class WorkerGone(RuntimeError):
    """A worker's process has ended before its time."""

    def __init__(self, number: int, exit_code: int | None) -> None:
        super().__init__(f"worker {number} is gone, exit code {exit_code}")
        self.exit_code = exit_code


def start_beside(training: TrainingSection) -> list[Beside]:
    """The processes that a training on the CPU wants beside its own; none where there is no core for each."""
    cores = len(os.sched_getaffinity(0))
    wanted = training.parallel and training.device != "cuda" and cores >= training.workers
    made: list[Beside] = []
    for number in range(1, training.workers if wanted else 1):
        made.append(Beside(number, made))
    return made


class Beside:
    """The trainer's end of a worker's process."""

    def __init__(self, number: int, earlier: Sequence[Beside] = ()) -> None:
        """`earlier`: the workers that have been started before it."""
        self._number = number
        # Threads do not survive a fork: where there are any, the worker has to import everything itself.
        forks = threading.active_count() == 1
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self._connection, theirs = context.Pipe()
        # A forked worker has the trainer's ends too. It closes them, or nobody would see that the trainer has.
        inherited = [each._connection for each in (*earlier, self)] if forks else []
        arguments = (os.getpid(), theirs, inherited)
        self._process = context.Process(target=_serve, args=arguments, name=f"worker {number}", daemon=True)
        # Until it can say that it ignores them, signals to the whole group wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)
        self._process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
        theirs.close()

    def begin(self, part: bytes, memory: int) -> None:
        """`part`: a pickled `Part`; `memory`: that to which its `Shared` has been moved."""
        try:
            self._connection.send_bytes(part)
            reduction.send_handle(self._connection, memory, self._process.pid)  # type: ignore[arg-type]
        except OSError:
            self._is_gone()

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            self._connection.send((method, arguments))
        except OSError:
            self._is_gone()

    def answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._is_gone()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _is_gone(self) -> None:
        self._process.join(_PATIENCE_SECONDS)
        raise WorkerGone(self._number, self._process.exitcode) from None

    def close(self) -> None:
        self._connection.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(owner: int, connection: Connection, inherited: Sequence[Connection]) -> None:
    """A worker's process: answers until the other end is closed. It dies with its owner, whatever it is doing."""
    call_itself(multiprocessing.current_process().name)
    for each in inherited:
        each.close()
    for number in _FOR_THE_TRAINER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
    die_with_parent(owner)
    from pipeline.training.worker import Worker  # takes seconds

    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    with contextlib.suppress(EOFError, OSError):  # the trainer has closed its end
        part: Part = pickle.loads(connection.recv_bytes())
        part.shared.attach(reduction.recv_handle(connection))
        worker: Worker | None = None
        while True:
            method, arguments = connection.recv()
            try:
                worker = worker or Worker(part)
                answer = getattr(worker, method)(*arguments)
            except Exception as error:
                error.add_note(traceback.format_exc().rstrip())
                answer = error
            connection.send(answer)
