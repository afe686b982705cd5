"""What every policy takes and gives, and the one place in which logits are bounded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOGIT_BOUND = 20.0


def bound_logits(logits: Tensor) -> Tensor:
    """The brief's guard, wherever logits are made: `nan_to_num(nan=0, posinf=20, neginf=-20)`, then clamp to ±20."""
    return torch.nan_to_num(logits, nan=0.0, posinf=LOGIT_BOUND, neginf=-LOGIT_BOUND).clamp(-LOGIT_BOUND, LOGIT_BOUND)


@dataclass(frozen=True)
class ObservationSpec:
    """Sizes of a policy's input."""

    glyphs: int
    """Glyph ids are in [0, glyphs)."""
    kinds: int
    """Entity kinds are in [0, kinds); 0: no entity."""
    crop: int
    stats: int
    actions: int


@dataclass(frozen=True)
class Routing:
    """How each sample's router logits become α: softmax or sparsemax of logits / temperature.

    Phases switch when a game begins, so a batch may hold samples of two of them.
    """

    sparse: Tensor
    """(B,) bool: sparsemax instead of softmax."""
    temperature: Tensor
    """(B,) float."""
    any_sparse: bool | None = None
    """Whether any sample is routed sparsely; None: look."""

    def __post_init__(self) -> None:
        if self.any_sparse is None:
            object.__setattr__(self, "any_sparse", bool(self.sparse.any()))


@dataclass
class PolicyOutput:
    """B samples, E experts, A actions.

    | Symbol | Shape | Description |
    |---|---|---|
    | logits | (B, A) | of the policy: Σₖ weightsₖ · expert_logitsₖ, bounded |
    | value | (B,) | critic's estimate of the (normalised) return |
    | alpha | (B, E) | the router's distribution over experts, after the temperature |
    | soft_alpha | (B, E) | softmax of the logits that α was made of: never without a gradient |
    | weights | (B, E) | what mixes the experts: α itself, or for a Gumbel router the one-hot draw |
    | router_logits | (B, E) | bounded, before the temperature |
    | expert_logits | (B, E, A) | bounded |
    | h_logic | (B, H) or None | output of the graph encoder |
    | record | dict | every random draw inside the network: give it back as `noise` to recompute this very policy |
    """

    logits: Tensor
    value: Tensor
    alpha: Tensor
    soft_alpha: Tensor
    weights: Tensor
    router_logits: Tensor
    expert_logits: Tensor
    h_logic: Tensor | None
    record: dict[str, Tensor]


class Policy(nn.Module):
    """What the training needs of a policy; without experts unless a subclass says otherwise."""

    expert_names: tuple[str, ...] = ()

    def draw_noise(self, samples: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Every random number that `forward` needs for this many samples, from one CPU generator."""
        return {}

    def forward(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        """One forward pass. `noise`: from `draw_noise`, or the `record` of an earlier output to recompute it.

        Acting replays a recording of it (:class:`pipeline.policy.traced.Traced`), so a branch in here may depend on
        names, on shapes and on `routing.any_sparse`, but not on the values of a tensor.
        """
        raise NotImplementedError

    def value(self, obs: dict[str, Tensor]) -> Tensor:
        """The critic alone (B,), without dropout: for bootstrapping."""
        raise NotImplementedError

    def expert_rows(self) -> set[str]:
        """Names of the parameters whose first dimension is the expert."""
        return set()
