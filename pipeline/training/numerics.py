"""Guards: finite checks, reward normalisation, and the last good state in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn


def all_finite(state: Any) -> bool:
    """Whether every number in nested dicts, lists, tensors and arrays is finite."""
    if isinstance(state, torch.Tensor):
        return not state.is_floating_point() or bool(torch.isfinite(state).all())
    if isinstance(state, np.ndarray):
        return not np.issubdtype(state.dtype, np.floating) or bool(np.isfinite(state).all())
    if isinstance(state, dict):
        return all(all_finite(value) for value in state.values())
    if isinstance(state, list | tuple):
        return all(all_finite(value) for value in state)
    return not isinstance(state, float) or bool(np.isfinite(state))


def parameters_finite(module: nn.Module) -> bool:
    """Whether every parameter is finite, in one pass: a sum of absolute values is finite only if each value is."""
    return all(bool(torch.isfinite(parameter.detach().abs().sum())) for parameter in module.parameters())


class RewardNormaliser:
    """Divides rewards by the running standard deviation of the discounted return, and clips them.

    It is the deviation of the return, not of the reward: with the latter, values and gradients grow by 1 / (1 − γ)
    (Andrychowicz et al. 2021, https://arxiv.org/abs/2006.05990, find the same).

    Args:
        num_envs: n, number of games.
        gamma: discount factor.
        clip: largest absolute value of a normalised reward.
        centring: whether to subtract the running mean of the rewards as well.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float, centring: bool) -> None:
        self._gamma, self._clip, self._centring = gamma, clip, centring
        self._discounted = np.zeros(num_envs)
        self._returns = RunningMeanStd(shape=())
        self._rewards = RunningMeanStd(shape=())

    def __call__(self, reward: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Normalised rewards (T, n) float32 of T steps of n games.

        Args:
            reward: (T, n).
            done: (T, n) bool, whether the game ended with the step.
        """
        discounted = np.empty(reward.shape)
        for t in range(len(reward)):
            discounted[t] = self._discounted = self._discounted * self._gamma + reward[t]
            self._discounted[done[t]] = 0.0
        self._returns.update(discounted.ravel())
        self._rewards.update(reward.ravel())
        centre = self._rewards.mean if self._centring else 0.0
        scaled = (reward - centre) / np.sqrt(self._returns.var + 1e-8)
        return np.clip(scaled, -self._clip, self._clip).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """The running statistics, and the running return of each game."""
        statistics = {
            name: [float(each.mean), float(each.var), float(each.count)]
            for name, each in (("returns", self._returns), ("rewards", self._rewards))
        }
        return {"discounted": self._discounted.tolist(), **statistics}

    def restore(self, state: dict[str, Any], games: bool = True) -> None:
        """Restores the statistics; with `games` also the running returns, if the same games are played on."""
        for name, each in (("returns", self._returns), ("rewards", self._rewards)):
            mean, var, count = state[name]
            each.mean, each.var, each.count = np.array(mean), np.array(var), count
        if games:
            self._discounted = np.array(state["discounted"])


class LastGoodState:
    """A copy of the newest state whose numbers were all finite.

    Args:
        capture: returns the present state.
        restore: restores a state.
    """

    def __init__(self, capture: Callable[[], dict[str, Any]], restore: Callable[[dict[str, Any]], None]) -> None:
        self._capture, self._restore = capture, restore
        self._state: dict[str, Any] | None = None

    def keep(self) -> bool:
        """Copies the present state if all of it is finite; returns whether it is."""
        state = self._capture()
        if not all_finite(state):
            return False
        self._state = copy.deepcopy(state)
        return True

    def roll_back(self) -> None:
        """Restores the copy.

        Raises:
            FloatingPointError: there has never been a finite state.
        """
        if self._state is None:
            raise FloatingPointError("not finite from the start: there is no good state to go back to")
        self._restore(copy.deepcopy(self._state))
