"""What all workers share, in a memory without a name: if any process is killed, nothing is left behind."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.policy.interface import Policy

_ALIGNMENT = 64
"""Bytes. It is torch's own alignment, so that torch chooses the same kernels for shared tensors."""


@dataclass(frozen=True)
class Shared:
    """The policy, and each worker's gradient (P,), P the number of trained values."""

    policy: Policy
    gradients: list[Tensor]

    def share(self) -> int:
        """Moves all tensors, in place, to a new memory; returns its file descriptor.

        A copy of this object in another process attaches to the same memory with `attach`.
        """
        memory = os.memfd_create("workers")
        os.ftruncate(memory, sum(map(_size, self._tensors())))
        self._move(memory, keep=True)
        return memory

    def attach(self, memory: int) -> None:
        """Replaces the tensors of this copy, in place, by those in the shared memory."""
        self._move(memory, keep=False)

    def _tensors(self) -> list[Tensor]:
        return [*self.policy.parameters(), *self.policy.buffers(), *self.gradients]

    def _move(self, memory: int, *, keep: bool) -> None:
        content, offset = mmap.mmap(memory, 0), 0
        for tensor in filter(Tensor.numel, self._tensors()):
            there = torch.frombuffer(content, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
            if keep:
                there.copy_(tensor.data.flatten())
            tensor.data = there.view(tensor.shape)
            offset += _size(tensor)


def _size(tensor: Tensor) -> int:
    """Size of a tensor in bytes, rounded up to the alignment."""
    return -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
