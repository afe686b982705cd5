"""The brief's losses, each a pure function. B samples, E experts, A actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.config import TrainingSection
from pipeline.policy.interface import MASKED, PolicyOutput


def ppo_actor(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    """Clipped surrogate objective, negated (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7).

    All tensors are (B,); the result is a scalar.
    """
    ratio = (log_prob - old_log_prob).exp()
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * advantage).mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy in nats over the last dimension; 0·log 0 is 0.

    A probability that underflows is clamped to 1e-30. At 0 the gradient is infinite, and its product with the softmax's
    own gradient, which is 0 there, is NaN.
    """
    return torch.special.entr(probabilities.clamp_min(1e-30)).sum(-1)


def load_balance(load: Tensor) -> Tensor:
    """Mean squared error between the load (E,), the batch mean of α, and the uniform 1/E."""
    return ((load - 1 / len(load)) ** 2).mean()


def diversity(expert_logits: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of experts' action logits (B, E, A); 0 for a single expert.

    The logits are centred over the actions, so a constant added to all of them changes neither policy nor loss. Actions
    that are not offered count for nothing: in these the experts could differ without an effect on the policy.
    """
    experts = expert_logits.shape[1]
    if experts < 2:
        return expert_logits.new_zeros(())
    offered = expert_logits > MASKED
    mean = (expert_logits * offered).sum(-1, keepdim=True) / offered.sum(-1, keepdim=True).clamp_min(1)
    centred = (expert_logits - mean) * offered
    unit = functional.normalize(centred, dim=-1, eps=1e-6)
    # ‖Σ u‖² = Σ ‖u‖² + 2 Σ u·u′, the last sum over all pairs.
    pairs = (unit.sum(1).square().sum(-1) - unit.square().sum((1, 2))) / 2
    return pairs.mean() / (experts * (experts - 1) / 2)


@dataclass
class Losses:
    """The terms of one minibatch and their weighted sum, all scalars."""

    total: Tensor
    actor: Tensor
    critic: Tensor
    action_entropy: Tensor
    alpha_entropy: Tensor
    load_balance: Tensor
    diversity: Tensor


def total_loss(
    output: PolicyOutput,
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    returns: Tensor,
    training: TrainingSection,
    load: Tensor | None = None,
) -> Losses:
    """The loss of one minibatch and its terms.

    total = actor + critic_coef·critic + load_balance_coef·load_balance + diversity_coef·diversity
    − entropy_coef·H(policy) − alpha_entropy_coef·H(α)

    The terms on α are computed on a softmax of the logits that the router's sparsemax sees, after the temperature. At a
    one-hot output sparsemax has no gradient, so a collapse could never be undone. Before the temperature, the softmax
    would look balanced while sparsemax already gives nearly all weight to one expert.

    Args:
        output: the policy's output for the B samples.
        log_prob: (B,), log-probability of the actions under the present policy.
        old_log_prob: (B,), the same under the policy that acted.
        advantage: (B,), normalised over the whole minibatch.
        returns: (B,), target of the critic.
        training: the coefficients.
        load: (E,), mean α of the whole minibatch, if the samples are one of several equal parts of it. The terms on the
            load take its value and the part's own gradient. So the average of the parts' gradients is the gradient on
            the whole minibatch.
    """
    soft = output.soft_alpha
    mean = soft.mean(0)
    if load is not None:
        mean = mean + (load - mean).detach()
    terms = Losses(
        total=soft.new_zeros(()),
        actor=ppo_actor(log_prob, old_log_prob, advantage, training.clip_ratio),
        critic=functional.mse_loss(output.value, returns),
        action_entropy=entropy(output.logits.softmax(-1)).mean(),
        alpha_entropy=entropy(mean if training.alpha_entropy_of == "load" else soft).mean(),
        load_balance=load_balance(mean),
        diversity=diversity(output.expert_logits),
    )
    terms.total = (
        terms.actor
        + training.critic_coef * terms.critic
        + training.load_balance_coef * terms.load_balance
        + training.diversity_coef * terms.diversity
        - training.entropy_coef * terms.action_entropy
        - training.alpha_entropy_coef * terms.alpha_entropy
    )
    return terms
