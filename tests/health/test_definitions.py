"""Every metric that is logged, or that a rule looks at, is defined once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.health.definitions import DEFINITIONS, definition
from pipeline.health.rule_sets import BANDS, RULE_SETS
from pipeline.health.verdict import MEANINGS, meaning_of
from pipeline.training.baseline import measure_random
from pipeline.training.trainer import Trainer
from tests.conftest import small_config


def test_what_a_trainer_logs_is_defined(tmp_path: Path) -> None:
    reports: list[Mapping[str, float]] = []
    config = small_config()
    trainer = Trainer(config, tmp_path, lambda metrics, step: reports.append(metrics))
    trainer.train()
    trainer.close()
    logged = {name for each in reports for name in each} | measure_random(config).keys()
    assert trainer.progress >= 1 and reports[-1]["progress"] == 1.0  # also where more games end than were asked for
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


@pytest.mark.parametrize("verdict", [*MEANINGS, "a_verdict_of_my_own"])
def test_the_meaning_of_a_scripts_verdict_tells_only_of_what_a_script_has(verdict: str) -> None:
    meaning = meaning_of(verdict, script=True)
    for word in ("policy", "rollback", "router", "expert", "graph", "encoder", "update", "trainer", "NetHack"):
        assert word not in meaning
