"""A policy without the Python between its operations: each forward pass is recorded once, then only replayed.

With eight games a pass is some 150 operations of a few microseconds each, and half of its time is Python's. The replay
calls the same kernels in the same order, so its numbers are those of the policy bit for bit, and so are its gradients.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.policy.interface import Policy, PolicyOutput, Routing
from pipeline.policy.router import route

_FIELDS = tuple(field.name for field in dataclasses.fields(PolicyOutput) if field.name != "record")
Forward = Callable[[dict[str, Tensor], Routing, dict[str, Tensor]], PolicyOutput]


class Traced:
    """Called like the policy; reads its weights as they are at each call.

    A recording holds for inputs of the same names and shapes, and for one way through the policy's branches (whether
    any sample is routed sparsely); for others there is another one. Where torch cannot record, it is the policy itself.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._recordings: dict[object, Forward] = {}

    def __call__(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        shapes = [(name, tensor.shape) for part in (obs, noise) for name, tensor in part.items()]
        key = (*shapes, bool(routing.sparse.any()), torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        if key not in self._recordings:
            self._recordings[key] = _record(self._policy, obs, routing, noise)
        return self._recordings[key](obs, routing, noise)


class _Flat(nn.Module):
    """A policy that takes tensors and gives tensors, as torch records them."""

    def __init__(self, policy: Policy, obs: list[str], noise: list[str]) -> None:
        super().__init__()
        self.policy, self.obs, self.noise = policy, obs, noise
        self.fields: list[str] = []
        self.record: list[str] = []

    def forward(self, sparse: Tensor, temperature: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        obs = dict(zip(self.obs, tensors, strict=False))
        noise = dict(zip(self.noise, tensors[len(obs) :], strict=True))
        output = self.policy(obs, Routing(sparse, temperature), noise)
        given = {name: value for name in _FIELDS if (value := getattr(output, name)) is not None}
        self.fields, self.record = list(given), list(output.record)
        return (*given.values(), *output.record.values())


def _record(policy: Policy, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> Forward:
    flat = _Flat(policy, list(obs), list(noise))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # what is to replace it needs a compiler
            of_branches = torch.jit.TracerWarning  # type: ignore[attr-defined]
            warnings.filterwarnings("ignore", category=of_branches, module=route.__module__)  # whose branch is known
            recording = torch.jit.trace(
                flat, (routing.sparse, routing.temperature, *obs.values(), *noise.values()), check_trace=False
            )
    except (RuntimeError, AttributeError):
        return policy

    def replay(obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]  # one by one, as recorded
            tensors = recording(routing.sparse, routing.temperature, *obs.values(), *noise.values())
        given = len(flat.fields)
        fields: dict[str, Any] = dict.fromkeys(_FIELDS) | dict(zip(flat.fields, tensors[:given], strict=True))
        return PolicyOutput(**fields, record=dict(zip(flat.record, tensors[given:], strict=True)))

    return replay
