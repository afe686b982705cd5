"""The workers of a training: the first in this process, the others in processes beside it, each on a core of its own.

    call("collect", 12)  ─▶  worker 0 here, worker 1 … in its process   ─▶  [answer of 0, answer of 1, …]

Weights and gradients lie in shared memory, so a call carries a method's name and a few numbers. Only one side works at
a time: the weights do not change while the workers compute, and the workers wait while the weights change. So the
numbers are the same, bit for bit, whether the other workers run beside this process or one after another in it.
"""

from __future__ import annotations

import atexit
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ExperimentConfig
from pipeline.environments.vector import game_seeds
from pipeline.policy.interface import Policy
from pipeline.training.beside import Beside, start_beside
from pipeline.training.shared import Shared
from pipeline.training.worker import Part, Worker, views


class Workers:
    """`training.workers` workers behind one call.

    Args:
        config: the attempt's configuration.
        policy: the policy that acts and is trained.
        games_seed: seed of the games.
        seed: seed of all other random draws.
        device: where the policy is.
        beside: processes that have been started for this training already; None: they are started here.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        policy: Policy,
        games_seed: int,
        seed: int,
        device: torch.device,
        beside: list[Beside] | None = None,
    ) -> None:
        training = config.training
        count = training.workers
        self._beside = start_beside(training) if beside is None else beside
        if device.type != "cpu":
            self._dismiss()
        self.parallel = bool(self._beside)
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        size = sum(parameter.numel() for parameter in trained)
        self._gradients = [torch.zeros(size, device=device) for _ in range(count)]
        shared = Shared(policy, self._gradients)
        games = np.array_split(np.array(game_seeds(config.environment, games_seed), dtype=object), count)
        seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(count)]
        parts = [Part(k, config, shared, list(games[k]), seeds[k], device) for k in range(count)]
        self.here: list[Worker] = []
        if self._beside:
            atexit.register(self.close)  # runs before multiprocessing's own exit function, which would wait for them
            self._begin_beside(parts[-len(self._beside) :], shared)
        for parameter, gradient in zip(trained, views(self._gradients[0], trained), strict=True):
            parameter.grad = gradient
        self.here = [Worker(part) for part in parts[: count - len(self._beside)]]

    def _begin_beside(self, parts: list[Part], shared: Shared) -> None:
        told = [pickle.dumps(part) for part in parts]
        memory = shared.share()
        for process, part in zip(self._beside, told, strict=True):
            process.begin(part, memory)
        os.close(memory)

    def _dismiss(self) -> None:
        for process in self._beside:
            process.close()
        self._beside = []

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Calls a method of every worker with the same arguments; returns the answers in the workers' order.

        Raises:
            WorkerGone: a worker's process has ended unexpectedly.
        """
        return self.call_each(method, [arguments] * (len(self.here) + len(self._beside)))

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Calls a method of every worker, each with its own arguments; returns the answers in the workers' order.

        Raises:
            WorkerGone: a worker's process has ended unexpectedly.
        """
        for worker, own in zip(self._beside, arguments[len(self.here) :], strict=True):
            worker.ask(method, own)
        here = arguments[: len(self.here)]
        answers = [getattr(worker, method)(*own) for worker, own in zip(self.here, here, strict=True)]
        return answers + [worker.answer() for worker in self._beside]

    def average_gradient(self) -> Tensor:
        """The mean of the workers' gradients, one flat tensor; each parameter's `grad` is a view of a part of it."""
        first, *others = self._gradients
        for other in others:
            first.add_(other)
        return first.div_(len(self._gradients))

    def close(self) -> None:
        """Ends the processes and the games; no method can be called afterwards."""
        atexit.unregister(self.close)
        self._dismiss()
        for worker in self.here:
            worker.close()
        self.here = []
