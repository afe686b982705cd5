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
    """Advantages (T, n) as in Schulman et al. 2016 (https://arxiv.org/abs/1506.02438, eq. 16).

    Args:
        reward, value: (T, n).
        next_value: (T, n), the value of what followed each step: at a truncation, of the game's own last
            observation, not of the next game's first. Ignored at a termination.
        terminated, truncated: (T, n) bool. Nothing is carried across either; only a termination has no future.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carried = gamma * gae_lambda * ~(terminated | truncated)
    advantage = torch.zeros_like(reward)
    running = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        running = delta[t] + carried[t] * running
        advantage[t] = running
    return advantage
