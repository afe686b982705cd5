"""The monitored quantities, as pure functions of arrays. B samples, E experts, N nodes, H heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_TINY = 1e-12


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy in nats over the last axis; 0·ln 0 is 0."""
    p = np.asarray(probabilities, dtype=np.float64)
    return -(p * np.log(np.maximum(p, _TINY))).sum(-1)


def routing_metrics(alpha: np.ndarray, experts: Sequence[str]) -> dict[str, float]:
    """Metrics of the router's distributions α (B, E); each ratio means the same for any E.

    `alpha_entropy`: mean of H(α(s)), nats. `alpha_entropy_ratio`: that over ln E. `expert_usage/<name>`: batch mean
    ᾱ. `expert_usage_max`, `expert_usage_min`. `expert_usage_excess`: (max ᾱ − 1/E) / (1 − 1/E), 0 balanced, 1 one
    expert alone. `load_entropy_ratio`: H(ᾱ) / ln E. `specialisation`: load_entropy_ratio − alpha_entropy_ratio,
    not negative, as entropy is concave. `support_size`: mean number of experts with α > 0.
    """
    count = len(experts)
    load = alpha.mean(0, dtype=np.float64)
    nats = float(entropy(alpha).mean())
    maximum = float(np.log(count)) if count > 1 else 1.0
    alpha_ratio, load_ratio = nats / maximum, float(entropy(load)) / maximum
    return {
        "alpha_entropy": nats,
        "alpha_entropy_ratio": alpha_ratio,
        "load_entropy_ratio": load_ratio,
        "specialisation": load_ratio - alpha_ratio,
        "support_size": float((alpha > 0).sum(-1).mean()),
        "expert_usage_max": float(load.max()),
        "expert_usage_min": float(load.min()),
        "expert_usage_excess": float((load.max() - 1 / count) / (1 - 1 / count)) if count > 1 else 0.0,
        **{f"expert_usage/{name}": float(share) for name, share in zip(experts, load, strict=True)},
    }


def attention_variance(attention: np.ndarray, adjacency: np.ndarray) -> tuple[float, float]:
    """How unequal attention is, over nodes that have a choice (degree d ≥ 2).

    Args:
        attention: (B, H, N, N), rows sum to 1 over the edges.
        adjacency: (B, N, N) bool.

    Returns:
        The normalised variance (d·Σa² − 1) / (d − 1) in [0, 1] (0 uniform, 1 all on one edge) and the raw variance of
        the weights, Σa²/d − 1/d², whose maximum (d − 1)/d² shrinks with the degree. Means over nodes and heads.
    """
    degree = adjacency.sum(-1)[:, None]  # (B, 1, N)
    squares = (np.where(adjacency[:, None], attention, 0.0) ** 2).sum(-1)  # (B, H, N)
    chosen = np.broadcast_to(degree >= 2, squares.shape)
    if not chosen.any():
        return 0.0, 0.0
    d = np.broadcast_to(degree, squares.shape)[chosen].astype(np.float64)
    s = squares[chosen]
    return float(((d * s - 1) / (d - 1)).mean()), float((s / d - 1 / d**2).mean())


def neighbour_similarity(features: np.ndarray, adjacency: np.ndarray) -> float:
    """Mean cosine similarity of nodes that share an edge: features (B, N, F), adjacency (B, N, N). 1: over-smoothed."""
    unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), _TINY)
    edges = adjacency & ~np.eye(adjacency.shape[-1], dtype=bool)
    if not edges.any():
        return 0.0
    return float((unit @ unit.transpose(0, 2, 1))[edges].mean())


def explained_variance(predicted: np.ndarray, actual: np.ndarray) -> float:
    """1 − Var(actual − predicted) / Var(actual); 0 where `actual` does not vary."""
    variance = float(np.var(actual))
    return 1 - float(np.var(actual - predicted)) / variance if variance > _TINY else 0.0
