"""The experts: perceptrons of the same shape, computed as one batched matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.policy.interface import bound_logits


class Experts(nn.Module):
    """Module: state (B, S) → bounded action logits of every expert (B, E, A).

    The first dimension of each parameter is the expert.
    """

    def __init__(self, state_size: int, hidden: int, actions: int, experts: int) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.empty(experts, state_size, hidden))
        self.bias_in = nn.Parameter(torch.zeros(experts, 1, hidden))
        self.weight_out = nn.Parameter(torch.empty(experts, hidden, actions))
        self.bias_out = nn.Parameter(torch.zeros(experts, 1, actions))
        for expert in range(experts):
            nn.init.orthogonal_(self.weight_in.data[expert], gain=2**0.5)
            nn.init.orthogonal_(self.weight_out.data[expert], gain=0.1)

    def forward(self, state: Tensor) -> Tensor:
        everyone = state.expand(self.weight_in.shape[0], -1, -1)
        h = functional.relu(torch.baddbmm(self.bias_in, everyone, self.weight_in))  # (E, B, hidden)
        return bound_logits(torch.baddbmm(self.bias_out, h, self.weight_out).transpose(0, 1))
