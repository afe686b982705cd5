"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), with the brief's guards."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import ExperimentConfig
from pipeline.health.metrics import explained_variance
from pipeline.policy.interface import PolicyOutput, Routing
from pipeline.policy.mixture import MixturePolicy
from pipeline.training.losses import total_loss
from pipeline.training.numerics import LastGoodState, parameters_finite
from pipeline.training.phases import learning_rate_at
from pipeline.training.rollout import Rollout

CONSECUTIVE_NONFINITE = 4
"""So many minibatches in a row that are not finite send the training back to the last good state."""


class PPO:
    """Owns the optimiser. `poison`: how many coming minibatches get a NaN gradient (a drill's fault)."""

    def __init__(
        self, policy: MixturePolicy, config: ExperimentConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        self.policy, self.config, self.generator, self.device = policy, config, generator, device
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
        self._trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def forward(self, rollout: Rollout, index: Tensor | slice) -> tuple[PolicyOutput, Tensor]:
        """The policy that acted, recomputed for some samples: its output, and log-probabilities (B,) of the actions."""
        output = self.policy(
            {key: array[index] for key, array in rollout.obs.items()},
            Routing(rollout.routing.sparse[index], rollout.routing.temperature[index]),
            {key: array[index] for key, array in rollout.noise.items()},
        )
        return output, output.logits.log_softmax(-1).gather(-1, rollout.action[index].unsqueeze(-1)).squeeze(-1)

    def update(self, rollout: Rollout, episode: int, phase: int, last_good: LastGoodState) -> dict[str, float]:
        """`ppo_epochs` passes over the rollout in minibatches; one optimiser step for each finite one.

        Returns the update's metrics: means over its minibatches unless the name says otherwise.
        """
        training = self.config.training
        samples = len(rollout.action)
        seen: dict[str, list[float]] = defaultdict(list)
        skipped, in_a_row, rolled_back, learning_rate = 0, 0, False, 0.0
        for _ in range(training.ppo_epochs):
            order = torch.randperm(samples, generator=self.generator).to(self.device)
            for index in order.split(training.batch_size):
                learning_rate = self._set_learning_rate(episode, phase)
                measured = self._minibatch(rollout, index)
                if measured is None:
                    skipped, in_a_row = skipped + 1, in_a_row + 1
                else:
                    in_a_row = 0
                    for name, number in measured.items():
                        seen[name].append(number)
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
            "explained_variance": explained_variance(rollout.value.cpu().numpy(), rollout.returns.cpu().numpy()),
        }

    def _set_learning_rate(self, episode: int, phase: int) -> float:
        config = self.config
        rate = learning_rate_at(self.optimiser_steps, episode, phase, config.training, config.phases)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        return rate

    def _minibatch(self, rollout: Rollout, index: Tensor) -> dict[str, float] | None:
        """One optimiser step; None where loss or gradient was not finite, and then nothing has changed."""
        training = self.config.training
        output, log_prob = self.forward(rollout, index)
        old_log_prob, advantage = rollout.log_prob[index], rollout.advantage[index]
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        losses = total_loss(output, log_prob, old_log_prob, advantage, rollout.returns[index], training)
        if not torch.isfinite(losses.total):
            return None
        self.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        if self.poison > 0:
            self.poison -= 1
            for parameter in self._trained:
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))
        norm = nn.utils.clip_grad_norm_(self._trained, training.max_grad_norm)
        if not torch.isfinite(norm):
            return None
        self.optimiser.step()
        self.optimiser_steps += 1
        with torch.no_grad():
            log_ratio = log_prob - old_log_prob
            ratio = log_ratio.exp()
            numbers = {
                "loss/total": losses.total,
                "loss/actor": losses.actor,
                "loss/critic": losses.critic,
                "loss/load_balance": losses.load_balance,
                "loss/diversity": losses.diversity,
                "loss/alpha_entropy": losses.alpha_entropy,
                "entropy": losses.action_entropy,
                "gradient_norm": norm,
                "approx_kl": ((ratio - 1) - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > training.clip_ratio).float().mean(),
                "ratio_deviation": (ratio - 1).abs().max(),
            }
            values = torch.stack([number.detach() for number in numbers.values()]).tolist()
        return dict(zip(numbers, values, strict=True))

    def state(self) -> dict[str, Any]:
        """Adam's moments by parameter name, so that they can be carried over to another shape of policy."""
        moments = {
            name: dict(self.optimiser.state[parameter])
            for name, parameter in self.policy.named_parameters()
            if parameter in self.optimiser.state
        }
        return {"moments": moments, "optimiser_steps": self.optimiser_steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over the moments of the parameters that are trained here too; the others start without."""
        self.optimiser.state.clear()
        for name, parameter in self.policy.named_parameters():
            if parameter.requires_grad and name in state["moments"]:
                self.optimiser.state[parameter] = {
                    key: value.clone().to(self.device) for key, value in state["moments"][name].items()
                }
        self.optimiser_steps = state["optimiser_steps"]
