"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), with the brief's guards."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import ExperimentConfig
from pipeline.policy.interface import Policy
from pipeline.training.numerics import LastGoodState, parameters_finite
from pipeline.training.phases import learning_rate_at
from pipeline.training.worker import BatchStatistics
from pipeline.training.workers import Workers

CONSECUTIVE_NONFINITE = 4
"""Number of consecutive minibatches that are not finite after which training returns to the last good state."""


class PPO:
    """The update of the policy, and its optimiser (Adam).

    `poison` is the number of coming minibatches that get a NaN gradient; drills set it.

    Args:
        policy: the policy that is trained.
        config: the attempt's configuration.
        workers: they hold the rollouts and compute gradients on them.
        device: where the policy is.
    """

    def __init__(self, policy: Policy, config: ExperimentConfig, workers: Workers, device: torch.device) -> None:
        self.policy, self.config, self.workers, self.device = policy, config, workers, device
        self.optimiser_steps = 0
        self.poison = 0
        training = config.training
        factors = {"gat": training.gat_learning_rate_factor, "router": training.router_learning_rate_factor}
        groups: dict[str, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                part = name.split(".")[0]
                groups[part if part in factors else "rest"].append(parameter)
        self.optimiser = torch.optim.Adam(
            [
                {"params": parameters, "lr": 0.0, "factor": factors.get(part, 1.0)}
                for part, parameters in groups.items()
            ],
            eps=1e-5,
            fused=True,
        )

    def update(self, episode: int, phase: int, last_good: LastGoodState, rate_factor: float = 1.0) -> dict[str, float]:
        """Makes `ppo_epochs` passes over the workers' rollouts, with one optimiser step for each finite minibatch.

        Args:
            episode: number of finished episodes, for the learning rate.
            phase: phase of the rollout, for the learning rate.
            last_good: the state to return to after too many minibatches that are not finite.
            rate_factor: the learning rate is multiplied by this.

        Returns:
            The update's metrics: means over its minibatches unless the name says otherwise.
        """
        training = self.config.training
        seen: dict[str, list[float]] = defaultdict(list)
        skipped, in_a_row, rolled_back, learning_rate = 0, 0, False, 0.0
        for _ in range(training.ppo_epochs):
            for number in range(self.workers.call("shuffle")[0]):
                learning_rate = self._set_learning_rate(episode, phase, rate_factor)
                measured = self._minibatch(number)
                if measured is None:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                else:
                    in_a_row = 0
                    for name, value in measured.items():
                        seen[name].append(value)
                if in_a_row == CONSECUTIVE_NONFINITE:
                    rolled_back = True
                    break
            if rolled_back or not parameters_finite(self.policy):
                rolled_back = True
                last_good.roll_back()
                break
        metrics = {name: float(np.mean(numbers)) for name, numbers in seen.items()}
        if seen:
            norms = seen["gradient_norm"]
            metrics["gradient_norm_max"] = max(norms)
            metrics["gradient_clipped_share"] = float(np.mean(np.array(norms) > training.max_grad_norm))
            metrics["first_ratio_deviation"] = seen["ratio_deviation"][0]
        metrics.pop("ratio_deviation", None)
        return metrics | {
            "learning_rate": learning_rate,
            "nonfinite_batches": float(skipped),
            "rolled_back": float(rolled_back),
            "optimiser_steps": float(self.optimiser_steps),
        }

    def _set_learning_rate(self, episode: int, phase: int, factor: float) -> float:
        config = self.config
        rate = factor * learning_rate_at(self.optimiser_steps, episode, phase, config.training, config.phases)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _minibatch(self, number: int) -> dict[str, float] | None:
        """Makes one optimiser step; returns its metrics.

        If the loss or the gradient is not finite, it changes nothing and returns None.
        """
        parts = self.workers.call("forward", number)
        measured = self.workers.call("backward", BatchStatistics.join(parts))
        numbers = {name: sum(each[name] for each in measured) / len(measured) for name in measured[0]}
        numbers["ratio_deviation"] = max(each["ratio_deviation"] for each in measured)
        if not math.isfinite(numbers["loss/total"]):
            return None
        gradient = self.workers.average_gradient()
        if self.poison > 0:
            self.poison -= 1
            gradient.fill_(float("nan"))
        norm = clip_norm(gradient, self.config.training.max_grad_norm)
        if not math.isfinite(norm):
            return None
        self.optimiser.step()
        self.optimiser_steps += 1
        return numbers | {"gradient_norm": norm}

    def state(self) -> dict[str, Any]:
        """Adam's moments by parameter name, so that a policy of another shape can take them over."""
        moments = {
            name: dict(self.optimiser.state[parameter])
            for name, parameter in self.policy.named_parameters()
            if parameter in self.optimiser.state
        }
        return {"moments": moments, "optimiser_steps": self.optimiser_steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over the moments of the parameters that are trained here too; others start without moments."""
        self.optimiser.state.clear()
        for name, parameter in self.policy.named_parameters():
            if parameter.requires_grad and name in state["moments"]:
                self.optimiser.state[parameter] = {
                    key: value.clone().to(self.device) for key, value in state["moments"][name].items()
                }
        self.optimiser_steps = state["optimiser_steps"]


def clip_norm(gradient: Tensor, most: float) -> float:
    """Scales a flat gradient in place to a norm of at most `most`; returns the norm before.

    `torch.nn.utils.clip_grad_norm_` does the same parameter by parameter, in three times the time.
    """
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((most / (norm + 1e-6)).clamp(max=1.0))
    return float(norm)
