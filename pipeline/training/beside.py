"""A worker in a process of its own, beside the trainer's.

The process is forked from the trainer, which has already imported what both need. If the trainer has threads, it is
spawned instead.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Sequence
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pipeline.config import TrainingSection
from pipeline.processes.forking import may_fork
from pipeline.processes.leash import call_itself, die_with_parent
from pipeline.processes.signals import ASKING, ignore_asking

if TYPE_CHECKING:
    from pipeline.training.worker import Part

_PATIENCE_SECONDS = 5.0


class WorkerGone(RuntimeError):
    """A worker's process has ended unexpectedly. `exit_code` is negative if a signal killed it, None if unknown."""

    def __init__(self, number: int, exit_code: int | None) -> None:
        super().__init__(f"worker {number} is gone, exit code {exit_code}")
        self.exit_code = exit_code


def start_beside(training: TrainingSection) -> list[Beside]:
    """Starts the processes of all workers but the first; returns none if they would not help.

    They help a training on the CPU that has a core for each worker.
    """
    cores = len(os.sched_getaffinity(0))
    wanted = training.parallel and training.device != "cuda" and cores >= training.workers
    made: list[Beside] = []
    for number in range(1, training.workers if wanted else 1):
        made.append(Beside(number, made))
    return made


class Beside:
    """The trainer's end of a worker's process.

    Args:
        number: the worker's number.
        earlier: the workers that have been started before.
    """

    def __init__(self, number: int, earlier: Sequence[Beside] = ()) -> None:
        self._number = number
        # Threads do not survive a fork. If there are any, the worker is spawned and imports everything itself.
        forks = may_fork()
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self._connection, theirs = context.Pipe()
        # A forked worker inherits the trainer's ends of all connections. It closes them: while one copy of an end is
        # open, the worker at the other end does not see that the trainer has closed its own.
        inherited = [each._connection for each in (*earlier, self)] if forks else []
        arguments = (os.getpid(), theirs, inherited)
        self._process = context.Process(target=_serve, args=arguments, name=f"worker {number}", daemon=True)
        # These signals may reach the whole process group, but are meant for the trainer: it finishes its update, and
        # then closes its workers. They are blocked until the worker has set them to be ignored.
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        self._process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
        theirs.close()

    def begin(self, part: bytes, memory: int) -> None:
        """Sends the worker its part of the training.

        Args:
            part: a pickled `Part`.
            memory: file descriptor of the memory to which the part's `Shared` has been moved.

        Raises:
            WorkerGone: the process has ended.
        """
        try:
            self._connection.send_bytes(part)
            reduction.send_handle(self._connection, memory, self._process.pid)  # type: ignore[arg-type]
        except OSError:
            self._is_gone()

    def ask(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Calls a method of the worker without waiting for its answer. Raises WorkerGone if the process has ended."""
        try:
            self._connection.send((method, arguments))
        except OSError:
            self._is_gone()

    def answer(self) -> Any:
        """Waits for the answer to the last call, and returns it.

        Raises:
            WorkerGone: the process has ended.
            Exception: the method raised it in the worker; its note holds the worker's traceback.
        """
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
        """Ends the process; kills it if it does not end within five seconds."""
        self._connection.close()
        self._process.join(_PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(owner: int, connection: Connection, inherited: Sequence[Connection]) -> None:
    """Runs a worker's process: answers calls until the trainer closes its end. The process dies with its owner."""
    call_itself(multiprocessing.current_process().name)
    for each in inherited:
        each.close()
    ignore_asking()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    die_with_parent(owner)
    from pipeline.training.worker import Worker  # takes seconds where the process was spawned

    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    with contextlib.suppress(EOFError, OSError):  # raised when the trainer has closed its end
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
