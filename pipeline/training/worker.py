"""A worker: some of the games, and the gradient on the samples played in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import ExperimentConfig
from pipeline.environments.vector import Games
from pipeline.policy.interface import PolicyOutput
from pipeline.training.allocator import keep_freed_memory
from pipeline.training.losses import total_loss
from pipeline.training.measure import inspect_graphs
from pipeline.training.rollout import Collector, Played, Samples
from pipeline.training.shared import Shared


@dataclass(frozen=True)
class BatchStatistics:
    """Statistics of a whole minibatch that the losses need; workers have parts of equal size, so means are averaged."""

    advantage: float
    """Mean of the advantages."""
    variance: float
    """Variance of the advantages."""
    load: np.ndarray
    """(E,) mean of the soft α."""

    @staticmethod
    def join(parts: list[BatchStatistics]) -> BatchStatistics:
        """The statistics of all parts together; the variance is that within the parts plus that between them."""
        mean = sum(part.advantage for part in parts) / len(parts)
        return BatchStatistics(
            advantage=mean,
            variance=sum(part.variance + (part.advantage - mean) ** 2 for part in parts) / len(parts),
            load=np.mean([part.load for part in parts], axis=0),
        )


@dataclass(frozen=True)
class Part:
    """A worker's part of a training."""

    number: int
    """The worker's number, from 0."""
    config: ExperimentConfig
    shared: Shared
    """The policy, which is updated while the workers wait, and the gradients, in the order of `Worker.trained`."""
    games: list[np.random.SeedSequence]
    """The seed of each of its games."""
    seed: int
    """Seed of all other random draws."""
    device: torch.device
    """Where the policy is."""


class Worker:
    """Plays its games, and computes the gradient on its part of each minibatch."""

    def __init__(self, part: Part) -> None:
        config, policy = part.config, part.shared.policy
        torch.set_num_threads(config.training.threads)
        keep_freed_memory()
        self.config, self.policy, self.device = config, policy, part.device
        self.generator = torch.Generator().manual_seed(part.seed)
        games = Games(config.played, part.games)
        self.collector = Collector(games, policy, config, self.generator, part.device)
        self.trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self._gradient = views(part.shared.gradients[part.number], self.trained)
        self._size = -(-config.training.batch_size // config.training.workers)

    # Playing

    def collect(self, finished: int) -> Played:
        """Plays a rollout; returns it without the observations, which stay here.

        `finished`: number of finished episodes of the run when the rollout begins.
        """
        self.collector.finished = finished
        self.samples, played = self.collector.collect()
        return played

    def poison_observations(self, rollouts: int) -> None:
        """Makes the observations of a number of coming rollouts NaN; a drill's fault."""
        self.collector.poisoned_rollouts = rollouts

    def inspect_graphs(self, count: int) -> dict[str, float]:
        """Metrics of the graph encoder on about `count` of the rollout's observations."""
        return inspect_graphs(self.policy, self.samples, count)

    def learn_from(self, advantage: np.ndarray, returns: np.ndarray) -> None:
        """Sets the advantages and returns (T, n) of the rollout."""
        self.samples.advantage = torch.from_numpy(advantage).flatten().to(self.device)
        self.samples.returns = torch.from_numpy(returns).flatten().to(self.device)

    # Learning

    def recompute(self, samples: Samples) -> tuple[PolicyOutput, Tensor]:
        """Recomputes the policy that acted; returns its output, and log-probabilities (B,) of the actions."""
        output = self.policy(samples.obs, samples.routing, samples.noise)
        return output, output.logits.log_softmax(-1).gather(-1, samples.action.unsqueeze(-1)).squeeze(-1)

    def shuffle(self) -> int:
        """Draws the minibatches of the next epoch; returns how many there are."""
        order = torch.randperm(len(self.samples), generator=self.generator)
        self._shuffled = self.samples[order.to(self.device)]
        return -(-len(order) // self._size)

    def forward(self, number: int) -> BatchStatistics:
        """Recomputes the policy on its part of a minibatch; returns the part's statistics."""
        self._batch = self._shuffled[number * self._size : (number + 1) * self._size]
        self._output, self._log_prob = self.recompute(self._batch)
        return BatchStatistics(
            advantage=float(self._batch.advantage.mean()),
            variance=float(self._batch.advantage.var(correction=0)),
            load=self._output.soft_alpha.detach().mean(0).cpu().numpy(),
        )

    def backward(self, batch: BatchStatistics) -> dict[str, float]:
        """Computes the gradient on its part; averaged over the workers, it is the gradient on the whole minibatch.

        Args:
            batch: the statistics of the whole minibatch.

        Returns:
            The part's losses and measurements. Their averages are those of the whole minibatch, except
            `ratio_deviation`, which is a maximum.
        """
        training, samples, log_prob = self.config.training, self._batch, self._log_prob
        losses = total_loss(
            self._output,
            log_prob,
            samples.log_prob,
            (samples.advantage - batch.advantage) / (batch.variance**0.5 + 1e-8),
            samples.returns,
            training,
            load=torch.from_numpy(batch.load).to(self.device),
        )
        gradient = torch.autograd.grad(losses.total, self.trained, materialize_grads=True)
        torch._foreach_copy_(self._gradient, gradient)
        del self._output, self._log_prob
        with torch.no_grad():
            log_ratio = log_prob.detach() - samples.log_prob
            ratio = log_ratio.exp()
            numbers = {
                "loss/total": losses.total,
                "loss/actor": losses.actor,
                "loss/critic": losses.critic,
                "loss/load_balance": losses.load_balance,
                "loss/diversity": losses.diversity,
                "loss/alpha_entropy": losses.alpha_entropy,
                "entropy": losses.action_entropy,
                "approx_kl": ((ratio - 1) - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > training.clip_ratio).float().mean(),
                "ratio_deviation": (ratio - 1).abs().max(),
            }
            values = torch.stack([number.detach() for number in numbers.values()]).tolist()
        return dict(zip(numbers, values, strict=True))

    # State

    def close(self) -> None:
        """Ends the games."""
        self.collector.games.close()

    def count_from(self, finished: int) -> None:
        """Sets the number of finished episodes of the run, and the phase of the present games accordingly."""
        self.collector.count_from(finished)

    def random_state(self) -> np.ndarray:
        """State of the generator, uint8."""
        return self.generator.get_state().numpy()

    def restore_random(self, state: np.ndarray) -> None:
        """Restores a state of the generator."""
        self.generator.set_state(torch.from_numpy(state.copy()))

    def state(self) -> dict[str, Any]:
        """The games and their phases, as plain numbers."""
        return self.collector.state()

    def restore(self, state: dict[str, Any]) -> int:
        """Replays the games of a state; returns how many could not be replayed and start anew."""
        return self.collector.restore(state)


def views(flat: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    """Views of consecutive pieces of a flat tensor, in the shapes of the parameters."""
    pieces = flat.split([parameter.numel() for parameter in parameters])
    return [piece.view_as(parameter) for piece, parameter in zip(pieces, parameters, strict=True)]
