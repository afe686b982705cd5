"""Expert collapse is not absorbing: from a one-hot router, the terms on the load bring the other experts back."""

from __future__ import annotations

import pytest
import torch

from pipeline.config import ExperimentConfig
from pipeline.policy.heads import LogitHead
from pipeline.policy.interface import PolicyOutput, Routing
from pipeline.policy.router import route
from pipeline.training.losses import total_loss


def largest_usage(steps: int, **coefficients: float) -> tuple[float, float]:
    """The largest share of an expert under sparsemax at temperature ½, before and after training on these terms."""
    torch.manual_seed(0)
    none = {f"training.{name}": 0.0 for name in ("load_balance_coef", "alpha_entropy_coef", "entropy_coef")}
    given = {f"training.{name}": value for name, value in coefficients.items()}
    training = ExperimentConfig().with_values(none | given).training
    router, states = LogitHead(12, 32, outputs=4), torch.randn(256, 12)
    with torch.no_grad():
        router.out.weight.mul_(0.3)
        router.out.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]))  # a gap of 6 after the temperature
    optimiser = torch.optim.Adam(router.parameters(), lr=1e-3, eps=1e-5)
    routing = Routing(torch.ones(256, dtype=torch.bool), torch.full((256,), 0.5))
    zero, usage = torch.zeros(256), []
    for _ in range(steps):
        logits = router(states)
        alpha, soft = route(logits, routing)
        usage.append(float(alpha.detach().mean(0).max()))
        experts = torch.zeros(256, 4, 23)
        output = PolicyOutput(experts[:, 0], zero, alpha, soft, alpha, logits, experts, None, {})
        loss = total_loss(output, zero, zero, zero, zero, training).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return usage[0], usage[-1]


@pytest.mark.parametrize("term", ["load_balance_coef", "alpha_entropy_coef"])
def test_collapse_is_escaped_by_either_term_alone(term: str) -> None:
    """Each term has the brief's own coefficient."""
    begin, end = largest_usage(2000, **{term: getattr(ExperimentConfig().training, term)})
    assert begin == 1.0 and end < 0.4


def test_collapse_stays_without_them() -> None:
    assert largest_usage(300) == (1.0, 1.0)
