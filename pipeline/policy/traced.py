"""A policy without Python between its operations: each kind of forward pass is recorded once, then only replayed.

With eight games a pass is some 150 operations of a few microseconds each, and half of its time is Python's. The replay
calls the same kernels in the same order (entmax's sparsemax as the Python that it is), so its numbers are those of the
policy bit for bit.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.policy.interface import Policy, PolicyOutput, Routing

log = logging.getLogger(__name__)
_FIELDS = tuple(field.name for field in dataclasses.fields(PolicyOutput) if field.name != "record")
Forward = Callable[[dict[str, Tensor], Routing, dict[str, Tensor]], PolicyOutput]


class Traced:
    """Called like the policy. Weights may change in place, or through `.data`; other attributes must stay as they are.

    A recording holds for inputs of the same names and shapes and the same `routing.any_sparse`; for others there is
    another one (3.5 MB each, for as long as the process lives). Where torch cannot record, it is the policy itself.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._recordings: dict[object, Forward] = {}

    def __call__(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        shapes = [(name, tensor.shape) for part in (obs, noise) for name, tensor in part.items()]
        key = (*shapes, routing.any_sparse, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        if key not in self._recordings:
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
    """None where torch cannot record, or would record only one way through a branch on a tensor's values."""
    flat = _Flat(policy, routing.any_sparse, list(obs), list(noise))
    inputs = (routing.sparse, routing.temperature, *obs.values(), *noise.values())
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            recording = torch.jit.trace(flat, inputs, check_trace=False)  # deprecated; its successors need a compiler
    except (RuntimeError, AttributeError) as problem:
        problems = [str(problem)]
    else:
        problems = [str(each.message) for each in caught if not issubclass(each.category, DeprecationWarning)]
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
