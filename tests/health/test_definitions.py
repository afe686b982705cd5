"""Every metric that is logged, or that a rule looks at, is defined once."""

from __future__ import annotations

from pathlib import Path

from pipeline.health.definitions import DEFINITIONS, definition
from pipeline.health.rule_sets import BANDS, RULE_SETS
from pipeline.training.baseline import measure_random
from pipeline.training.trainer import Trainer
from tests.conftest import small_config


def test_what_a_trainer_logs_is_defined(tmp_path: Path) -> None:
    logged: set[str] = set()
    config = small_config()
    trainer = Trainer(config, tmp_path, lambda metrics, step: logged.update(metrics))
    trainer.train()
    trainer.close()
    logged |= measure_random(config).keys()
    assert {name for name in logged if definition(name) is None} == set()
    named = {each.name for each in DEFINITIONS if not each.name.endswith("/…")}
    assert named - logged == {"nonfinite_metrics", "attempts"}  # nothing is defined that is not there


def test_what_is_judged_is_defined() -> None:
    judged = {metric for rules in RULE_SETS.values() for rule in rules for metric in rule.metrics}
    for metric in judged | {band.metric for band in BANDS}:
        assert definition(metric) is not None, metric


def test_names_are_unique() -> None:
    names = [each.name for each in DEFINITIONS]
    assert len(set(names)) == len(names)
