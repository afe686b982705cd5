"""Two-layer perceptrons that turn a state into logits or into a value."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from pipeline.policy.interface import bound_logits


class LogitHead(nn.Module):
    """Module: state (B, S) → bounded logits (B, outputs), over a router's experts or over an actor's actions."""

    def __init__(self, state_size: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(state_size, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, state: Tensor) -> Tensor:
        return bound_logits(self.out(functional.relu(self.hidden(state))))


class Critic(nn.Module):
    """Module: state (B, S) → value (B,)."""

    def __init__(self, state_size: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(state_size, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, state: Tensor) -> Tensor:
        return self.out(functional.relu(self.hidden(state))).squeeze(-1)  # type: ignore[no-any-return]
