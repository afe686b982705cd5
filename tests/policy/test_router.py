"""Routers: true sparsemax, temperature, and a way back from collapse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.policy.interface import LOGIT_BOUND, Routing, bound_logits
from pipeline.policy.router import draw_gumbel, gumbel_route, route


def routing(samples: int, sparse: bool, temperature: float) -> Routing:
    return Routing(torch.full((samples,), sparse), torch.full((samples,), temperature))


def project_onto_simplex(z: Tensor) -> Tensor:
    """Sparsemax's closed form (Martins & Astudillo 2016, algorithm 1), one row at a time."""
    rows = []
    for row in z:
        ordered = row.sort(descending=True).values
        k = max(k for k in range(1, len(row) + 1) if 1 + k * ordered[k - 1] > ordered[:k].sum())
        rows.append((row - (ordered[:k].sum() - 1) / k).clamp(min=0))
    return torch.stack(rows)


def test_sparsemax_is_the_projection_onto_the_simplex() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 2
    alpha, _ = route(logits, routing(50, True, 0.7))
    assert torch.allclose(alpha, project_onto_simplex(logits / 0.7), atol=1e-6)
    assert (alpha == 0).any() and torch.allclose(alpha.sum(-1), torch.ones(50))


def test_temperature_divides_the_logits() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    for sparse in (False, True):
        hot, _ = route(logits, routing(20, sparse, 0.5))
        scaled, _ = route(logits * 2, routing(20, sparse, 1.0))
        assert torch.allclose(hot, scaled)


def test_each_sample_has_its_own_routing() -> None:
    logits = torch.tensor([[3.0, 0.0, 0.0, 0.0]] * 2)
    alpha, _ = route(logits, Routing(torch.tensor([False, True]), torch.ones(2)))
    assert (alpha[0] > 0).all() and alpha[1].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_one_hot_sparsemax_has_no_gradient_and_its_softmax_has() -> None:
    """This is the reason for `soft_alpha`: without it a collapse could never be undone."""
    logits = torch.tensor([[4.0, 0.0, 0.0, 0.0]], requires_grad=True)
    alpha, soft = route(logits, routing(1, True, 1.0))
    (gradient,) = torch.autograd.grad((alpha**2).sum(), logits, retain_graph=True)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad((soft**2).sum(), logits)
    assert gradient.any()


def test_gumbel_router_draws_from_softmax_and_passes_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[1.0, 0.0, -1.0, 0.5]]).expand(20_000, 4).clone().requires_grad_()
    gumbel = draw_gumbel(20_000, 4, generator, torch.device("cpu"))
    alpha, weights, choice = gumbel_route(logits, gumbel, None, temperature=1.0)
    assert set(weights.detach().round(decimals=4).unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(weights.mean(0), alpha[0], atol=0.015)
    weights[:, 0].sum().backward()
    assert logits.grad is not None and logits.grad.any()
    again = gumbel_route(logits, gumbel, choice, temperature=1.0)[1]
    assert torch.equal(again, weights)


def test_gumbel_temperature_shapes_the_gradient() -> None:
    logits = torch.tensor([[1.0, 0.0]], requires_grad=True)
    gradients = []
    for temperature in (1.0, 5.0):
        _, weights, _ = gumbel_route(logits, torch.zeros(1, 2), None, temperature)
        gradients.append(torch.autograd.grad(weights[0, 0], logits)[0][0, 0].item())
        soft = torch.softmax(torch.tensor([1.0, 0.0]) / temperature, 0)[0]
        assert gradients[-1] == pytest.approx((soft * (1 - soft) / temperature).item(), rel=1e-4)
    assert gradients[0] > 3 * gradients[1]


def test_bound_logits() -> None:
    inf, nan = float("inf"), float("nan")
    bounded = bound_logits(torch.tensor([nan, inf, -inf, 1e9, -1e9, 3.0]))
    assert bounded.tolist() == [0.0, LOGIT_BOUND, -LOGIT_BOUND, LOGIT_BOUND, -LOGIT_BOUND, 3.0]
