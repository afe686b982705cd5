"""The brief's losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.config import ExperimentConfig
from pipeline.policy.interface import MASKED, PolicyOutput
from pipeline.training.losses import diversity, entropy, load_balance, ppo_actor, total_loss

TRAINING = ExperimentConfig().training


def test_load_balance_is_the_squared_distance_from_uniform() -> None:
    alpha = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])  # load (0.5, 0.5, 0, 0)
    assert load_balance(alpha.mean(0)).item() == pytest.approx(4 * 0.25**2 / 4)
    assert load_balance(torch.eye(4).mean(0)).item() == pytest.approx(0.0)


def test_entropy_of_a_one_hot_is_zero_and_of_uniform_ln_n() -> None:
    values = entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert values.tolist() == pytest.approx([0.0, math.log(2)])


def test_entropy_has_a_finite_gradient_where_a_probability_is_zero() -> None:
    """At a temperature of 0.01 a logit gap of 1.1 is enough for a softmax to underflow."""
    logits = torch.tensor([[2.0, 0.0, 0.0, 0.0]], requires_grad=True)
    probabilities = (logits / 0.01).softmax(-1)
    assert (probabilities == 0).any()
    entropy(probabilities).sum().backward()
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_diversity_is_the_mean_pairwise_cosine() -> None:
    """Three experts over two actions, centred: (1, −1), (−1, 1), (1, −1): cosines −1, 1, −1."""
    logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [5.0, 3.0]]])
    assert diversity(logits).item() == pytest.approx(-1 / 3)


def test_diversity_ignores_a_constant_added_to_all_logits() -> None:
    logits = torch.randn(8, 4, 23)
    shifted = logits + torch.randn(8, 4, 1) * 10
    assert diversity(logits).item() == pytest.approx(diversity(shifted).item(), abs=1e-5)


def test_diversity_counts_only_what_is_offered() -> None:
    """Otherwise the experts could be as different as they like in what is never played."""
    logits = torch.randn(8, 4, 23)
    masked = logits.index_fill(-1, torch.tensor([3, 20]), MASKED)
    rest = [action for action in range(23) if action not in (3, 20)]
    assert diversity(masked).item() == pytest.approx(diversity(logits[..., rest]).item(), abs=1e-6)


def test_diversity_is_finite_where_nothing_is_offered() -> None:
    assert diversity(torch.full((2, 4, 23), MASKED)).item() == 0.0


def test_diversity_of_one_expert_is_zero() -> None:
    assert diversity(torch.randn(8, 1, 23)).item() == 0.0


def test_ppo_clips_what_would_go_too_far() -> None:
    old = torch.zeros(4)
    new = torch.tensor([2.0, 0.5, 2.0, 0.5]).log()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    # min(r·A, clip(r)·A): 1.15, 0.5, −2, −0.85
    assert ppo_actor(new, old, advantage, 0.15).item() == pytest.approx(-(1.15 + 0.5 - 2.0 - 0.85) / 4)


def output(samples: int = 16) -> PolicyOutput:
    torch.manual_seed(0)
    soft = torch.randn(samples, 4).softmax(-1)
    return PolicyOutput(
        logits=torch.randn(samples, 23),
        value=torch.randn(samples),
        alpha=soft,
        soft_alpha=soft,
        weights=soft,
        router_logits=soft.log(),
        expert_logits=torch.randn(samples, 4, 23),
        h_logic=None,
        record={},
    )


def test_total_is_the_briefs_sum() -> None:
    terms = total_loss(output(), torch.zeros(16), torch.zeros(16), torch.randn(16), torch.zeros(16), TRAINING)
    assert terms.total.item() == pytest.approx(
        terms.actor.item()
        + 0.5 * terms.critic.item()
        + 0.01 * terms.load_balance.item()
        + 0.01 * terms.diversity.item()
        - 0.01 * terms.action_entropy.item()
        - 0.05 * terms.alpha_entropy.item(),
        abs=1e-6,
    )


def test_balance_terms_see_the_softmax_and_not_the_sparse_alpha() -> None:
    """Sparsemax has collapsed while the softmax of the same logits is even: the terms must see the softmax."""
    made = output(4)
    made.alpha = made.weights = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(4, 4)
    made.soft_alpha = torch.full((4, 4), 0.25)
    zeros = torch.zeros(4)
    terms = total_loss(made, zeros, zeros, zeros, zeros, TRAINING)
    assert terms.load_balance.item() == pytest.approx(0.0)
    assert terms.alpha_entropy.item() == pytest.approx(math.log(4))


def test_critic_and_action_entropy_by_hand() -> None:
    made = output(2)
    made.value = torch.tensor([1.0, 3.0])
    made.logits = torch.zeros(2, 23)
    zeros = torch.zeros(2)
    terms = total_loss(made, zeros, zeros, zeros, torch.tensor([0.0, 1.0]), TRAINING)
    assert terms.critic.item() == pytest.approx((1 + 4) / 2)
    assert terms.action_entropy.item() == pytest.approx(math.log(23))


def test_alpha_entropy_of_the_load_and_of_each_sample() -> None:
    """For a router that decides and uses all experts, the entropy of the load is greatest and that of a sample is 0."""
    decided = output(4)
    decided.soft_alpha = torch.eye(4)
    zeros = torch.zeros(4)
    by_load = total_loss(decided, zeros, zeros, zeros, zeros, TRAINING)
    sample = TRAINING.model_copy(update={"alpha_entropy_of": "sample"})
    by_sample = total_loss(decided, zeros, zeros, zeros, zeros, sample)
    assert by_load.alpha_entropy.item() == pytest.approx(math.log(4))
    assert by_sample.alpha_entropy.item() == pytest.approx(0.0)
