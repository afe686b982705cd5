"""Generalised advantage estimation, against the definition as a sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.training.advantage import generalised_advantage

GAMMA, LAMBDA = 0.9, 0.8


def by_definition(
    reward: np.ndarray, value: np.ndarray, following: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
) -> np.ndarray:
    """A_t = Σ_l (γλ)^l δ_{t+l}, up to the end of the game, for one game after another."""
    steps, games = reward.shape
    delta = reward + GAMMA * np.where(terminated, 0, following) - value
    advantage = np.zeros_like(reward)
    for game in range(games):
        for t in range(steps):
            for later in range(t, steps):
                advantage[t, game] += (GAMMA * LAMBDA) ** (later - t) * delta[later, game]
                if terminated[later, game] or truncated[later, game]:
                    break
    return advantage


def test_gae_equals_its_definition_with_both_kinds_of_ends() -> None:
    random = np.random.default_rng(0)
    shape = (30, 5)
    reward, value, following = (random.normal(size=shape) for _ in range(3))
    terminated = random.random(shape) < 0.1
    truncated = (random.random(shape) < 0.1) & ~terminated
    assert terminated.any() and truncated.any()
    expected = by_definition(reward, value, following, terminated, truncated)
    actual = generalised_advantage(
        *(torch.from_numpy(each) for each in (reward, value, following, terminated, truncated)), GAMMA, LAMBDA
    )
    assert np.allclose(actual.numpy(), expected)


def test_gae_equals_torchrls() -> None:
    """torchrl is an independent implementation; deaths and cuts are mixed."""
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    random = torch.Generator().manual_seed(0)
    reward, value, following = (torch.randn(40, 6, generator=random) for _ in range(3))
    terminated = torch.rand(40, 6, generator=random) < 0.1
    truncated = (torch.rand(40, 6, generator=random) < 0.1) & ~terminated
    assert terminated.any() and truncated.any()
    ours = generalised_advantage(reward, value, following, terminated, truncated, GAMMA, LAMBDA)
    theirs, returns = generalized_advantage_estimate(
        GAMMA,
        LAMBDA,
        *(each.T.unsqueeze(-1) for each in (value, following, reward, terminated | truncated, terminated)),
    )
    assert torch.allclose(ours, theirs.squeeze(-1).T, atol=1e-5)
    assert torch.allclose(ours + value, returns.squeeze(-1).T, atol=1e-5)


@pytest.mark.parametrize(("terminated", "expected"), [(True, 1.0 - 0.5), (False, 1.0 + GAMMA * 2.0 - 0.5)])
def test_truncation_bootstraps_and_termination_does_not(terminated: bool, expected: float) -> None:
    advantage = generalised_advantage(
        reward=torch.tensor([[1.0], [7.0]]),
        value=torch.tensor([[0.5], [7.0]]),
        next_value=torch.tensor([[2.0], [7.0]]),
        terminated=torch.tensor([[terminated], [False]]),
        truncated=torch.tensor([[not terminated], [False]]),
        gamma=GAMMA,
        gae_lambda=LAMBDA,
    )
    assert advantage[0, 0].item() == pytest.approx(expected)
