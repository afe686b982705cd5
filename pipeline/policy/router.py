"""How logits over the experts become a distribution: softmax, sparsemax, Gumbel-softmax."""

from __future__ import annotations

import torch
from entmax import sparsemax
from torch import Tensor

from pipeline.policy.interface import Routing


def route(logits: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
    """Returns α (B, E), and the softmax of the same scaled logits (B, E).

    α is the softmax or the sparsemax (Martins & Astudillo 2016, https://arxiv.org/abs/1602.02068) of
    logits / temperature, as `routing` says for each sample.
    """
    scaled = logits / routing.temperature.unsqueeze(-1)
    soft = scaled.softmax(dim=-1)
    if not routing.any_sparse:
        return soft, soft
    return torch.where(routing.sparse.unsqueeze(-1), sparsemax(scaled, dim=-1), soft), soft


def draw_gumbel(samples: int, experts: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise (samples, experts): −log(−log u), u uniform in (0, 1)."""
    uniform = torch.rand((samples, experts), generator=generator).clamp_(1e-10, 1 - 1e-7)
    return (-torch.log(-torch.log(uniform))).to(device)


def gumbel_route(
    logits: Tensor, gumbel: Tensor, choice: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Straight-through Gumbel-softmax (Jang et al. 2017, https://arxiv.org/abs/1611.01144).

    Args:
        logits: (B, E).
        gumbel: (B, E), standard Gumbel noise, kept with the transition.
        choice: (B,) the experts that were drawn when acting, or None to draw them now.
        temperature: divides logits + noise in the relaxed weights.

    Returns:
        α = softmax(logits) (B, E), the distribution of the draw; weights (B, E), one-hot forward and relaxed
        backward; choice (B,).
    """
    relaxed = ((logits + gumbel) / temperature).softmax(dim=-1)
    if choice is None:
        choice = relaxed.argmax(dim=-1)
    # `functional.one_hot` reads the values, and what reads values cannot be recorded (`pipeline.policy.traced`).
    one_hot = torch.zeros_like(relaxed).scatter_(-1, choice.long().unsqueeze(-1), 1.0)
    return logits.softmax(dim=-1), one_hot + relaxed - relaxed.detach(), choice
