"""What every policy takes and returns, and the one function that bounds logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

LOGIT_BOUND = 20.0


def bound_logits(logits: Tensor) -> Tensor:
    """The logits clamped to ±20, with NaN replaced by 0: the brief's guard, applied wherever logits are made."""
    return torch.nan_to_num(logits, nan=0.0, posinf=LOGIT_BOUND, neginf=-LOGIT_BOUND).clamp(-LOGIT_BOUND, LOGIT_BOUND)


MASKED = -1e9
"""The logit of an action that is not offered. Its probability is 0 exactly."""


def mask_logits(logits: Tensor, obs: dict[str, Tensor]) -> Tensor:
    """Action logits (B, A), or (B, E, A), with `MASKED` where the observation's `action_mask` (B, A) says no."""
    refused = ~obs["action_mask"]
    return logits.masked_fill(refused if logits.ndim == 2 else refused.unsqueeze(1), MASKED)


@dataclass(frozen=True)
class ObservationSpec:
    """Sizes of a policy's input."""

    glyphs: int
    """Glyph ids are in [0, glyphs)."""
    kinds: int
    """Entity kinds are in [0, kinds); 0: no entity."""
    crop: int
    """Side of the map crop, in squares."""
    stats: int
    """Number of statistics of the hero."""
    actions: int
    """Number of actions."""
    paths: int = 0
    """Number of features of the hero's node that tell where paths lead; 0: the input has none."""


@dataclass(frozen=True)
class Routing:
    """How each sample's router logits become α: softmax or sparsemax of logits / temperature.

    Phases switch when a game begins, so a batch may hold samples of two phases.
    """

    sparse: Tensor
    """(B,) bool: sparsemax instead of softmax."""
    temperature: Tensor
    """(B,) float: divides the logits."""
    any_sparse: bool | None = None
    """Whether any sample is routed by sparsemax; None: computed from `sparse`."""

    def __post_init__(self) -> None:
        if self.any_sparse is None:
            object.__setattr__(self, "any_sparse", bool(self.sparse.any()))


@dataclass
class PolicyOutput:
    """What a policy computes for B samples, E experts and A actions.

    | Symbol | Shape | Description |
    |---|---|---|
    | logits | (B, A) | Σₖ weightsₖ · expert_logitsₖ, plus a shared expert's if there is one; bounded, then masked |
    | value | (B,) | critic's estimate of the (normalised) return |
    | alpha | (B, E) | the router's distribution over experts, after the temperature |
    | soft_alpha | (B, E) | softmax of the logits that α is made of; it always has a gradient |
    | weights | (B, E) | weights of the experts: α itself, or the one-hot draw of a Gumbel router |
    | router_logits | (B, E) | the router's logits, bounded, before the temperature |
    | expert_logits | (B, E, A) | action logits of each expert that is routed, bounded, then masked |
    | h_logic | (B, H) or None | output of the graph encoder |
    | record | dict | every random draw inside the network; passed as `noise`, it recomputes this very policy |
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
    """Base class of all policies: what the training needs of one. It has no experts unless a subclass names them."""

    expert_names: tuple[str, ...] = ()

    def draw_noise(self, samples: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Every random number that `forward` needs for `samples` samples, drawn from one CPU generator."""
        return {}

    def forward(self, obs: dict[str, Tensor], routing: Routing, noise: dict[str, Tensor]) -> PolicyOutput:
        """One forward pass.

        When acting, a recording of this method is replayed (:class:`pipeline.policy.traced.Traced`). So a branch may
        depend on names, on shapes and on `routing.any_sparse`, but not on the values of a tensor.

        Args:
            obs: encoded observations, (B, …) each.
            routing: how the router's logits become α.
            noise: what `draw_noise` returned, or the `record` of an earlier output to recompute that output.
        """
        raise NotImplementedError

    def value(self, obs: dict[str, Tensor]) -> Tensor:
        """The critic alone (B,), without dropout: for bootstrapping."""
        raise NotImplementedError

    def expert_rows(self) -> set[str]:
        """Names of the parameters whose first dimension is the expert."""
        return set()
