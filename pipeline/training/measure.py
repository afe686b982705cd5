"""The metrics of one update, computed from its rollout."""

from __future__ import annotations

import numpy as np

from pipeline.environments.nethack import Episode
from pipeline.environments.situations import SITUATIONS
from pipeline.health.metrics import attention_variance, neighbour_similarity, routing_metrics
from pipeline.health.phase import Phase
from pipeline.policy.interface import Policy
from pipeline.policy.mixture import MixturePolicy
from pipeline.training.rollout import Played, Samples


def main_phase(played: Played) -> int:
    """The phase in which most of the samples were played."""
    return int(np.bincount(played.phase.ravel(), minlength=len(Phase)).argmax())


def rollout_metrics(played: Played, experts: tuple[str, ...]) -> dict[str, float]:
    """Metrics of all samples of the update: phase, rewards, and the routing if there are several experts."""
    metrics = {
        "phase": float(main_phase(played)),
        "sparse_share": float(played.sparse.mean()),
        "temperature": float(played.temperature.mean()),
        "nonfinite_rewards": float(played.nonfinite_rewards),
        "reward_std": float(played.reward.std()),
    }
    if len(experts) > 1:
        metrics |= routing_metrics(played.alpha.reshape(-1, len(experts)), experts)
        metrics["router_logit_norm"] = float(np.linalg.norm(played.router_logits, axis=-1).mean())
    return metrics


def routing_by_situation(played: Played, experts: tuple[str, ...]) -> dict[str, float]:
    """How the router treats each kind of moment: does Survival carry the moments in which hit points are low?

    The metrics are `situation/<situation>`, the share of such moments, and `routing/<situation>/<expert>`, the expert's
    mean α over them; the latter is left out if there were none.
    """
    alpha = played.alpha.reshape(-1, played.alpha.shape[-1])
    met = played.situations.reshape(len(alpha), -1)
    metrics = {f"situation/{name}": float(share) for name, share in zip(SITUATIONS, met.mean(0), strict=True)}
    if len(experts) > 1:
        for name, chosen in zip(SITUATIONS, met.T, strict=True):
            usage = alpha[chosen].mean(0) if chosen.any() else ()
            metrics |= {f"routing/{name}/{expert}": float(share) for expert, share in zip(experts, usage, strict=False)}
    return metrics


def inspect_graphs(policy: Policy, samples: Samples, count: int) -> dict[str, float]:
    """Metrics of the graph encoder on about `count` evenly spread samples; empty if the policy has none.

    They are `gat_attention_variance` (normalised, mean over layers and for each layer), the brief's raw variance, and
    `gat_smoothing`.
    """
    if not isinstance(policy, MixturePolicy) or policy.gat is None:
        return {}
    # The number of games is usually even, so an odd stride passes through all of them.
    stride = len(samples.action) // count | 1
    obs = {key: array[::stride] for key, array in samples.obs.items()}
    attention, features = policy.gat.inspect(obs)
    adjacency = obs["adjacency"].cpu().numpy()
    exists = (obs["node_kind"] > 0).cpu().numpy()
    adjacency = adjacency & exists[:, :, None] & exists[:, None, :]
    normalised, raw = zip(*(attention_variance(each.cpu().numpy(), adjacency) for each in attention), strict=True)
    return {
        "gat_attention_variance": float(np.mean(normalised)),
        "gat_attention_variance_raw": float(np.mean(raw)),
        **{f"gat_attention_variance/layer_{k + 1}": value for k, value in enumerate(normalised)},
        "gat_smoothing": neighbour_similarity(features.cpu().numpy(), adjacency),
    }


def episode_metrics(episodes: list[Episode]) -> dict[str, float]:
    """Means over the episodes that ended in this update; empty if none did."""
    if not episodes:
        return {}
    return {
        "score": float(np.mean([episode.score for episode in episodes])),
        "episode/task_return": float(np.mean([episode.task_return for episode in episodes])),
        "episode/length": float(np.mean([episode.steps for episode in episodes])),
        "episode/depth": float(np.mean([episode.depth for episode in episodes])),
        "episode/death_share": float(np.mean([episode.died for episode in episodes])),
    }


def bootstrap_mean(scores: np.ndarray, seed: int = 0, samples: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of `scores` (n,)."""
    random = np.random.default_rng(seed)
    means = scores[random.integers(0, len(scores), size=(samples, len(scores)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
