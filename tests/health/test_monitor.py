"""Rules that watch nothing are named, with the reason."""

from __future__ import annotations

import math

from pipeline.config import ExperimentConfig
from pipeline.health.history import History
from pipeline.health.monitor import never_judged
from pipeline.health.threshold import Condition, ThresholdRule


def rule(*metrics: str, phases: tuple[int, ...] | None = None) -> ThresholdRule:
    conditions = tuple(Condition(metric=metric, above=1.0) for metric in metrics)
    return ThresholdRule(name="own", verdict="gradient_explosion", conditions=conditions, phases=phases)


def test_a_misspelt_metric_is_named_with_the_nearest() -> None:
    history = History({"loss": [(1, 1.0)], "lr": [(1, 1.0)]})
    why = never_judged(history, history.metrics, [rule("lss")])["own"]
    assert why == "metric lss was never logged; nearest: loss; logged were loss, lr"
    assert "nothing was logged" in never_judged(History(), (), [rule("lss")])["own"]
    many = [f"metric/{index}" for index in range(40)]
    assert "and 28 more" in never_judged(History(), many, [rule("lss")])["own"]


def test_metrics_that_never_meet_and_those_that_are_never_a_number() -> None:
    history = History({"train": [(1, 1.0)], "eval": [(2, 1.0)], "odd": [(1, math.nan)]})
    assert (
        "train and eval were never logged at the same step"
        in never_judged(history, history.metrics, [rule("train", "eval")])["own"]
    )
    assert "odd was never anything but NaN" in never_judged(history, history.metrics, [rule("odd")])["own"]
    assert "phase was never logged" in never_judged(history, history.metrics, [rule("train", phases=(0,))])["own"]
    assert never_judged(history, history.metrics, [rule("train")]) == {}


def config(command: list[str] | None, *extra: ThresholdRule, **override: object) -> ExperimentConfig:
    values = {"trainer.command": command, "health.extra": [each.model_dump() for each in extra]}
    return ExperimentConfig().with_values({**values, "health.override": override})


def test_only_rules_of_the_users_own_must_be_judged() -> None:
    assert config(["train"]).rules_to_be_judged == () == config(None).rules_to_be_judged
    names = [each.name for each in config(["train"], rule("loss"), load={"grace": 5}).rules_to_be_judged]
    assert sorted(names) == ["load", "own"]


def test_a_metric_that_this_trainer_knows_may_be_absent_at_a_rung() -> None:
    assert config(None, rule("gat_smoothing"), load={"grace": 5}).rules_to_be_judged == ()
    assert [each.name for each in config(None, rule("gat_smothing")).rules_to_be_judged] == ["own"]
