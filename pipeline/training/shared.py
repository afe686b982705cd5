"""What all workers have in common, in a memory without a name: whoever is killed leaves nothing behind."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.policy.interface import Policy

_ALIGNMENT = 64
"""Bytes, as torch aligns what it allocates: the same kernels run on the same numbers."""


@dataclass(frozen=True)
class Shared:
    """The policy, and each worker's gradient, (parameters,) each."""

    policy: Policy
    gradients: list[Tensor]

    def share(self) -> int:
        """Moves all of it, in place, to a new memory; returns its file descriptor, for `attach` on a copy elsewhere."""
        memory = os.memfd_create("workers")
        os.ftruncate(memory, sum(map(_size, self._tensors())))
        self._move(memory, keep=True)
        return memory

    def attach(self, memory: int) -> None:
        """Makes this copy, in place, one and the same as the one that was shared."""
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
    """In bytes, with what alignment takes."""
    return -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
