"""A policy without Python between its operations: a forward pass that is often called is recorded, then only replayed.

With eight games a pass is some 150 operations of a few microseconds each, and more than half of its time is Python's.
The replay calls the same kernels in the same order, so its numbers are those of the policy bit for bit. It is recorded
in two steps: `make_fx` takes down the kernels that are called (also those in entmax's sparsemax, which is Python) and
every shape as a number; `torch.jit.trace` makes of them something that runs without Python.
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


class Traced:
    """Called like the policy, to act: a gradient through a replay is not the policy's.

    Weights may change in place, or through `.data`; other attributes must stay as they are.

    A recording holds for inputs of the same names, shapes and types and the same `routing.any_sparse`; for others there
    is another one (3.5 MB each, for as long as the process lives). Where torch cannot record, it is the policy itself.

    Args:
        policy: what is recorded.
        calls: of a kind before that kind is recorded. Recording takes as long as some 300 replays save.
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
    """A policy that takes tensors and gives tensors, as torch records them."""

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
    """None where torch cannot record: where values leave it, as in a branch on them."""
    flat = _Flat(policy, routing.any_sparse, list(obs), list(noise))
    inputs = (routing.sparse, routing.temperature, *obs.values(), *noise.values())
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            torch.jit.trace(flat, inputs, check_trace=False)  # warns of a `tolist()`, which `make_fx` would not
            recording = torch.jit.trace(make_fx(flat)(*inputs), inputs, check_trace=False)
        # Another warning says that `trace` is deprecated: what is to follow on it needs a compiler.
        problems = [str(each.message) for each in caught if each.category is torch.jit.TracerWarning]  # type: ignore[attr-defined]
    except (RuntimeError, AttributeError) as problem:
        problems = [str(problem)]
    if problems:
        log.warning("the policy cannot be recorded, acting is slower: %s", problems[0])
        return None

    def replay(obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        try:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # one by one, as recorded
                tensors = recording(routing.sparse, routing.temperature, *obs.values(), *noise.values())
        except RuntimeError:
            return policy(obs, routing, noise)  # type: ignore[no-any-return]  # which tells what is wrong as it is
        given = len(flat.fields)
        fields: dict[str, Any] = dict.fromkeys(_FIELDS) | dict(zip(flat.fields, tensors[:given], strict=True))
        return PolicyOutput(**fields, record=dict(zip(flat.record, tensors[given:], strict=True)))

    return replay
