"""Watching a run in a real store: what the polls happen to see must not decide the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.experiment.watchdog import Watchdog
from pipeline.health.monitor import judge
from pipeline.health.rule_sets import RULE_SETS
from pipeline.tracking.store import Store
from tests.conftest import small_config

UPDATES = (
    {"alpha_entropy": 1.38, "gat_attention_variance_raw": 0.01},  # α-entropy is "abnormal" here …
    {"alpha_entropy": 1.35, "gat_attention_variance_raw": 0.01},
    {"alpha_entropy": 1.10, "gat_attention_variance_raw": 0.01},  # … and no longer here
)


@pytest.mark.parametrize("seen", [(0, 1, 2), (0, 2), (1, 2), (2,)], ids=str)
def test_live_verdict_is_that_of_the_finished_run(seen: tuple[int, ...], tmp_path: Path) -> None:
    """Of two rules that fire at the same step one has calmed down when the only poll looks: it still comes first."""
    store, config, rules = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path), small_config(), RULE_SETS["seed"]
    parent = store.start_parent(config)
    run_id = store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    watch, live = Watchdog(store, run_id, rules), None
    for index, metrics in enumerate(UPDATES):
        store.log_metrics(run_id, metrics, step=64 * (index + 1))
        if index in seen and live is None:
            live = watch.poll()
    finished = judge(store.history(run_id, ["alpha_entropy", "gat_attention_variance_raw"]), rules)
    assert finished is not None and finished.name == "router_indecision"
    assert live == finished
