"""The workers of a training: the first in this process, the others beside it, on a core of their own each.

    call("collect", 12)  ─▶  worker 0 here, worker 1 … in its process   ─▶  [its answer, its answer, …]

Weights and gradients lie in shared memory, so a call carries a method's name and a few numbers. Only one side is at
work at a time: the workers compute on weights that nobody changes, and the weights change while the workers wait.
So it makes no difference to the numbers, bit for bit, whether the others run beside or one after another in here.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, multiprocessing

from pipeline.config import ExperimentConfig
from pipeline.environments.vector import game_seeds
from pipeline.policy.interface import Policy
from pipeline.survival.leash import die_with_parent
from pipeline.training.worker import Worker, views

_PATIENCE_SECONDS = 5.0
_FOR_THE_TRAINER = (signal.SIGINT, signal.SIGTERM)
"""Sent to the whole process group; the trainer finishes its update and then closes its workers."""


class WorkerGone(RuntimeError):
    """A worker's process has ended before its time."""

    def __init__(self, number: int, exit_code: int | None) -> None:
        super().__init__(f"worker {number} is gone, exit code {exit_code}")
        self.exit_code = exit_code


class Workers:
    """`training.workers` workers behind one call."""

    def __init__(
        self, config: ExperimentConfig, policy: Policy, games_seed: int, seed: int, device: torch.device
    ) -> None:
        training = config.training
        count = training.workers
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        gradients = [torch.zeros(sum(parameter.numel() for parameter in trained)) for _ in range(count)]
        games = np.array_split(np.array(game_seeds(config.environment, games_seed), dtype=object), count)
        seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(count)]
        self.parallel = training.parallel and device.type == "cpu" and len(os.sched_getaffinity(0)) >= count > 1
        self._gradients = [gradient.to(device) for gradient in gradients]
        self.gradient = views(self._gradients[0], trained)
        """Of each parameter that is trained; `average_gradient` puts the average of all workers here."""
        if self.parallel:
            policy.share_memory()
            for gradient in self._gradients:
                gradient.share_memory_()
        parts = [(config, policy, list(games[k]), seeds[k], self._gradients[k], device) for k in range(count)]
        beside = parts[1:] if self.parallel else []
        self._beside = [_Beside(number, part) for number, part in enumerate(beside, start=1)]
        self.here = [Worker(*part) for part in parts[: count - len(beside)]]
        if self._beside:
            atexit.register(self.close)  # runs before multiprocessing's own, which would wait for them

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """The method of every worker, with the same arguments; the answers in the workers' order."""
        return self.call_each(method, [arguments] * (len(self.here) + len(self._beside)))

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The method of every worker, with arguments of its own."""
        for worker, own in zip(self._beside, arguments[len(self.here) :], strict=True):
            worker.ask(method, own)
        here = arguments[: len(self.here)]
        answers = [getattr(worker, method)(*own) for worker, own in zip(self.here, here, strict=True)]
        return answers + [worker.answer() for worker in self._beside]

    def average_gradient(self) -> list[Tensor]:
        """The mean of the workers' gradients, in place, in the shapes of the parameters."""
        first, *others = self._gradients
        for other in others:
            first.add_(other)
        first.div_(len(self._gradients))
        return self.gradient

    def close(self) -> None:
        """Ends the processes and the games; nothing can be called any more."""
        atexit.unregister(self.close)
        for process in self._beside:
            process.close()
        for worker in self.here:
            worker.close()
        self._beside, self.here = [], []


class _Beside:
    """A worker in a process of its own."""

    def __init__(self, number: int, part: tuple[Any, ...]) -> None:
        self._number = number
        context = multiprocessing.get_context("spawn")  # MLflow's threads and torch's do not survive a fork
        self._connection, theirs = context.Pipe()
        arguments = (os.getpid(), theirs, *part)
        self._process = context.Process(target=_serve, args=arguments, name=f"worker {number}", daemon=True)
        # Until it can say that it ignores them, signals to the whole group wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)
        self._process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
        theirs.close()

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


def _serve(owner: int, connection: Connection, *part: Any) -> None:
    """A worker's process: answers until the other end is closed. It dies with its owner, whatever it is doing."""
    for number in _FOR_THE_TRAINER:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_TRAINER)
    die_with_parent(owner)
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    worker: Worker | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            worker = worker or Worker(*part)
            answer = getattr(worker, method)(*arguments)
        except Exception as error:
            error.add_note(traceback.format_exc().rstrip())
            answer = error
        try:
            connection.send(answer)
        except OSError:
            return
