"""A training that dies of an error after its numbers have gone."""

from __future__ import annotations

import math

import pytest

from pipeline.config import HealthSection
from pipeline.health.at_death import broken_at_death, rules_at_death
from pipeline.health.history import History
from pipeline.health.verdict import Evidence

NAN, INF = math.nan, math.inf


def broken(metrics: dict[str, list[float]], *, of_names: bool = False, **health: object) -> Evidence | None:
    history = History(
        {name: [(10 * step, each) for step, each in enumerate(values)] for name, values in metrics.items()}
    )
    rules = HealthSection.model_validate(health).build()
    return broken_at_death(history, rules_at_death(rules), of_names=of_names)


@pytest.mark.parametrize("rules", ["generic", "v3", "seed", "none"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1.7976931348623157e308])
@pytest.mark.parametrize(
    "name", ["loss", "train/loss", "trainLoss", "loss/value", "grad_norm", "train/gradient_norm", "kl"]
)
def test_one_value_is_enough_whatever_the_rules(name: str, value: float, rules: str) -> None:
    found = broken({"reward": [1.0, 2.0, 3.0], name: [0.5, 0.4, value]}, rules=rules)
    assert found is not None and found.metric == name and not math.isfinite(found.values[-1])
    assert (found.onset_step, found.last_good_step, found.detection_step) == (20, 10, 20)


def test_the_metric_that_went_first_is_told() -> None:
    found = broken({"loss": [1.0, 1.0, 1.0, NAN], "grad_norm": [1.0, 1.0, INF, NAN]})
    assert found is not None and found.metric == "grad_norm" and found.onset_step == 20


def test_a_training_whose_numbers_came_back_has_not_died_of_them() -> None:
    assert broken({"loss": [1.0, NAN, NAN, 0.9]}) is None


def test_a_score_may_be_no_number() -> None:
    assert broken({"loss": [1.0, 0.9], "eval/reward": [1.0, NAN]}) is None


def test_where_a_file_is_missing_only_what_is_surely_broken_counts() -> None:
    assert broken({"loss": [NAN, NAN]}) is not None and broken({"loss": [NAN, NAN]}, of_names=True) is None
    assert broken({"grad_norm": [1.0, INF]}, of_names=True) is None
    assert broken({"grad_norm": [1.0, INF, NAN, NAN]}, of_names=True) is not None
    assert broken({"loss": [1.0, NAN]}, of_names=True) is not None


def test_the_users_own_rules_are_heeded() -> None:
    values = {"loss": [1.0, NAN], "margin": [1.0, NAN]}
    assert broken(values, override={"nan_loss": {"action": "warn"}}) is None
    assert broken({"loss": [1.0, NAN]}, override={"nan_loss": {"at_end": 0}}) is None
    own = [{"name": "margin", "metric": "margin", "never": 5}]
    found = broken({"loss": [1.0, 1.0], "margin": [1.0, NAN]}, extra=own)
    assert found is not None and found.rule == "margin"
