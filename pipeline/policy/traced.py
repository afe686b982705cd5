"""A policy without Python between its operations: a forward pass that is called often is recorded, then replayed.

With eight games a pass is some 150 operations of a few microseconds each, and Python takes more than half of the time.
The replay calls the same kernels in the same order, so its numbers are those of the policy bit for bit. A pass is
recorded in two steps. `make_fx` records the kernels that are called, also those of entmax's sparsemax, which is written
in Python, and it records every shape as a number. `torch.jit.trace` turns them into a program that runs without Python.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pipeline.policy.interface import Policy, PolicyOutput, Routing

log = logging.getLogger(__name__)
_FIELDS = tuple(field.name for field in dataclasses.fields(PolicyOutput) if field.name != "record")
Forward = Callable[[dict[str, Tensor], Routing, dict[str, Tensor]], PolicyOutput]
"""The signature of :meth:`Policy.forward`."""


class Traced:
    """A policy for acting, called like the policy. A gradient through a replay is not the policy's.

    Weights may change in place, or through `.data`. Other attributes of the policy must stay as they are.

    A recording is valid for inputs of the same names, shapes and types and the same `routing.any_sparse`. Other inputs
    get a recording of their own. Each takes 3.5 MB for as long as the process lives. If torch cannot record the
    policy, the policy itself is called.

    Args:
        policy: the policy that is recorded.
        calls: number of calls with one kind of inputs before that kind is recorded. Recording takes as long as some 300
            replays save.
    """

    def __init__(self, policy: Policy, calls: int = 300) -> None:
        self._policy = policy
        self._calls = calls
        self._called: Counter[object] = Counter()
        self._recordings: dict[object, Forward] = {}

    def __call__(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        inputs = [(name, tensor.shape, tensor.dtype) for part in (obs, noise) for name, tensor in part.items()]
        key = (*inputs, routing.any_sparse, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        if key not in self._recordings:
            self._called[key] += 1
            if self._called[key] <= self._calls:
                return self._policy(obs, routing, noise)  # type: ignore[no-any-return]
            self._recordings[key] = _record(self._policy, obs, routing, noise) or self._policy
        return self._recordings[key](obs, routing, noise)


class _Flat(nn.Module):
    """A policy that takes and returns tensors alone, because torch records nothing else."""

    def __init__(self, policy: Policy, any_sparse: bool | None, obs: list[str], noise: list[str]) -> None:
        super().__init__()
        self.policy, self.any_sparse, self.obs, self.noise = policy, any_sparse, obs, noise
        self.fields: list[str] = []
        self.record: list[str] = []

    def forward(self, sparse: Tensor, temperature: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        obs = dict(zip(self.obs, tensors, strict=False))
        noise = dict(zip(self.noise, tensors[len(obs) :], strict=True))
        output = self.policy(obs, Routing(sparse, temperature, self.any_sparse), noise)
        given = {name: value for name in _FIELDS if (value := getattr(output, name)) is not None}
        self.fields, self.record = list(given), list(output.record)
        return (*given.values(), *output.record.values())


def _record(policy: Policy, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> Forward | None:
    """The recording of a pass with these inputs; None if torch cannot record it, as where a branch reads values."""
    flat = _Flat(policy, routing.any_sparse, list(obs), list(noise))
    inputs = (routing.sparse, routing.temperature, *obs.values(), *noise.values())
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            torch.jit.trace(flat, inputs, check_trace=False)  # warns of a `tolist()`, unlike `make_fx`
            recording = torch.jit.trace(make_fx(flat)(*inputs), inputs, check_trace=False)
        # Warnings of other categories say that `trace` is deprecated; its successor needs a compiler.
        problems = [str(each.message) for each in caught if each.category is torch.jit.TracerWarning]  # type: ignore[attr-defined]
    except (RuntimeError, AttributeError) as problem:
        problems = [str(problem)]
    if problems:
        log.warning("the policy cannot be recorded, acting is slower: %s", problems[0])
        return None

    def replay(obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        try:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # no fusion: kernels as recorded
                tensors = recording(routing.sparse, routing.temperature, *obs.values(), *noise.values())
        except RuntimeError:
            return policy(obs, routing, noise)  # type: ignore[no-any-return]  # raises the error with a clear message
        given = len(flat.fields)
        fields: dict[str, Any] = dict.fromkeys(_FIELDS) | dict(zip(flat.fields, tensors[:given], strict=True))
        return PolicyOutput(**fields, record=dict(zip(flat.record, tensors[given:], strict=True)))

    return replay
