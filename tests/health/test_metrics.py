"""Definitions of the monitored metrics, against hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.metrics import attention_variance, explained_variance, neighbour_similarity, routing_metrics

FOUR = ("survival", "combat", "exploration", "general")


def test_uniform_router() -> None:
    metrics = routing_metrics(np.full((10, 4), 0.25), FOUR)
    assert metrics["alpha_entropy"] == pytest.approx(np.log(4))
    assert metrics["alpha_entropy_ratio"] == metrics["load_entropy_ratio"] == pytest.approx(1.0)
    assert metrics["specialisation"] == pytest.approx(0.0) and metrics["expert_usage_excess"] == pytest.approx(0.0)
    assert metrics["support_size"] == 4 and metrics["expert_usage/combat"] == pytest.approx(0.25)


def test_specialised_router_has_low_entropy_and_balanced_load() -> None:
    metrics = routing_metrics(np.eye(4)[np.arange(40) % 4], FOUR)
    assert metrics["alpha_entropy"] == pytest.approx(0.0) and metrics["specialisation"] == pytest.approx(1.0)
    assert metrics["expert_usage_excess"] == pytest.approx(0.0) and metrics["support_size"] == 1


@pytest.mark.parametrize(("count", "share"), [(4, 0.8), (2, 0.87)])
def test_excess_means_the_same_for_any_number_of_experts(count: int, share: float) -> None:
    load = np.full((5, count), (1 - share) / (count - 1))
    load[:, 0] = share
    assert routing_metrics(load, FOUR[:count])["expert_usage_excess"] == pytest.approx(0.735, abs=0.01)


def test_single_expert_is_no_collapse() -> None:
    metrics = routing_metrics(np.ones((5, 1)), ("all",))
    assert metrics["expert_usage_excess"] == 0.0 and metrics["alpha_entropy_ratio"] == 0.0


def test_attention_variance_is_0_for_uniform_and_1_for_one_edge() -> None:
    adjacency = np.ones((1, 3, 3), dtype=bool)
    uniform = np.full((1, 2, 3, 3), 1 / 3)
    one_edge = np.zeros((1, 2, 3, 3))
    one_edge[..., 0] = 1.0
    assert attention_variance(uniform, adjacency) == pytest.approx((0.0, 0.0))
    assert attention_variance(one_edge, adjacency) == pytest.approx((1.0, (3 - 1) / 9))


def test_attention_variance_by_hand() -> None:
    """Two edges with weights 0.7 and 0.3: 2·0.58 − 1 = 0.16, raw 0.58/2 − 1/4 = 0.04. One-edge nodes do not count."""
    adjacency = np.array([[[True, True], [False, True]]])
    attention = np.array([[[[0.7, 0.3], [0.0, 1.0]]]])
    assert attention_variance(attention, adjacency) == pytest.approx((0.16, 0.04))


def test_neighbour_similarity_sees_edges_only() -> None:
    features = np.array([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    linked = np.eye(3, dtype=bool)[None].copy()
    assert neighbour_similarity(features, linked) == 0.0
    linked[0, 0, 1] = linked[0, 1, 0] = True
    assert neighbour_similarity(features, linked) == pytest.approx(1.0)
    linked[0, 0, 2] = linked[0, 2, 0] = True
    assert neighbour_similarity(features, linked) == pytest.approx(0.5)


def test_explained_variance() -> None:
    actual = np.array([1.0, 2.0, 3.0])
    assert explained_variance(actual, actual) == 1.0
    assert explained_variance(np.zeros(3), actual) == pytest.approx(0.0)
    assert explained_variance(np.zeros(3), np.ones(3)) == 0.0
