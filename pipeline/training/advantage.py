"""Generalised advantage estimation in time order."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantage(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Advantages (T, n) of T steps of n games (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16).

    Args:
        reward: (T, n), normalised rewards.
        value: (T, n), the critic's estimate before each step.
        next_value: (T, n), the critic's estimate after each step. At a truncation it is that of the game's own last
            observation, not of the next game's first. At a termination it is ignored.
        terminated: (T, n) bool, the game ended: no advantage is carried across, and the next value counts as 0.
        truncated: (T, n) bool, the game was cut: no advantage is carried across, and the next value counts.
        gamma: discount factor.
        gae_lambda: λ, which trades bias against variance.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carried = gamma * gae_lambda * ~(terminated | truncated)
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        running = delta[t] + carried[t] * running
        advantage[t] = running
    return advantage
