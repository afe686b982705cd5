"""The workers of a training: the first in this process, the others beside it, on a core of their own each.

    call("collect", 12)  ─▶  worker 0 here, worker 1 … in its process   ─▶  [its answer, its answer, …]

Weights and gradients lie in shared memory, so a call carries a method's name and a few numbers. Only one side is at
work at a time: the workers compute on weights that nobody changes, and the weights change while the workers wait.
So it makes no difference to the numbers, bit for bit, whether the others run beside or one after another in here.
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
        beside: processes that have been started for this training already; by default they are started here.
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
            atexit.register(self.close)  # runs before multiprocessing's own, which would wait for them
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
        """The method of every worker, with the same arguments; the answers in the workers' order."""
        return self.call_each(method, [arguments] * (len(self.here) + len(self._beside)))

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The method of every worker, with arguments of its own."""
        for worker, own in zip(self._beside, arguments[len(self.here) :], strict=True):
            worker.ask(method, own)
        here = arguments[: len(self.here)]
        answers = [getattr(worker, method)(*own) for worker, own in zip(self.here, here, strict=True)]
        return answers + [worker.answer() for worker in self._beside]

    def average_gradient(self) -> Tensor:
        """The mean of the workers' gradients, in place: one flat tensor, of which each parameter's `grad` is a part."""
        first, *others = self._gradients
        for other in others:
            first.add_(other)
        return first.div_(len(self._gradients))

    def close(self) -> None:
        """Ends the processes and the games; nothing can be called any more."""
        atexit.unregister(self.close)
        self._dismiss()
        for worker in self.here:
            worker.close()
        self.here = []
