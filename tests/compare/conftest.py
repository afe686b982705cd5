"""Finished experiments in a real store, said to it as orchestrator and trainer say it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric

from fallbacks.ladder import BUILT_IN
from pipeline.attempt.file import WarmStart
from pipeline.config import ExperimentConfig, difference
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Verdict
from pipeline.tracking.store import Store
from tests.conftest import small_config

UPDATES = 30
BEGINS_TO_FAIL = 20
EXPERTS = ("survival", "combat", "exploration", "general")
RULE = ThresholdRule(
    name="load", verdict="expert_collapse", conditions=(Condition(metric="expert_usage_excess", above=0.73),),
    window=5, patience=5,
)  # fmt: skip


def metrics(update: int, *, level: float, collapsing: bool) -> dict[str, float]:
    """Of one update, as the trainer logs them; from update `BEGINS_TO_FAIL` on one expert may take all."""
    excess = 0.95 if collapsing and update >= BEGINS_TO_FAIL else 0.1
    usage = np.full(4, (1 - excess) / 4) + np.array([0, 0, 0, excess])
    found = {
        "update": update, "episodes": 2.0 * update, "score": level + update % 3, "score_window": level + 1,
        "best/score_window": level + 1, "phase": update // 10, "sparse_share": float(update >= 10),
        "alpha_entropy_ratio": 0.1 if excess > 0.5 else 0.6, "expert_usage_excess": excess,
        "gradient_norm": 1.0 + update % 2, "gat_attention_variance": 0.2, "gat_smoothing": 0.5,
        "steps_per_second": 1000.0, "memory_mb": 900.0, "time/collect": 0.01, "time/update": 0.02, "time/report": 0.001,
        "random/score": 8.0, "random/score_low": 7.0, "random/score_high": 9.0,
        **{f"expert_usage/{name}": share for name, share in zip(EXPERTS, usage, strict=True)},
    }  # fmt: skip
    if update % 10 == 1:
        found |= {f"situation/{name}": 0.25 for name in ("low_hit_points", "monster_adjacent", "new_map", "else")}
        found |= {f"routing/low_hit_points/{name}": 0.7 if name == "survival" else 0.1 for name in EXPERTS}
        found |= {f"routing/else/{name}": 0.25 for name in EXPERTS}
    return found


def attempt(store: Store, parent: str, base: ExperimentConfig, number: int, rung: str, **how: object) -> str:
    """A finished attempt: `level` of its score, its warm `start`, whether it is `collapsing`, and goes on `whole`."""
    config = BUILT_IN[rung].transform(base)
    start = how.get("start")
    assert start is None or isinstance(start, WarmStart)
    run = store.start_attempt(
        parent, config, rung=rung, number=number, diff=difference(base, config), warm_start=start, reason="a test"
    )
    collapsing = bool(how.get("collapsing"))
    now, level = int(time.time() * 1000), float(how.get("level", 10.0))  # type: ignore[arg-type]
    logged = [
        Metric(name, value, now + update, 64 * update)
        for update in range(1, UPDATES + 1)
        for name, value in metrics(update, level=level, collapsing=collapsing).items()
    ]
    for part in (logged[:600], logged[600:]):  # MLflow takes a thousand at once
        store.client.log_batch(run, metrics=part)
    verdict = Verdict(name="healthy")
    if collapsing:
        (evidence,) = RULE.firings(store.history(run, RULE.metrics))
        verdict = Verdict(name="expert_collapse", evidence=(evidence,))
        verdict = verdict.after_its_end(64 * UPDATES) if how.get("whole") else verdict
    store.end_attempt(run, verdict, "a summary")
    return run


def experiment(store: Store, seed: int, levels: dict[str, float], **changes: object) -> tuple[str, list[str]]:
    """A finished ladder: every rung but the last collapses. Returns the parent and its attempts."""
    base = small_config(experiment__name="night <1>", training__seed=seed, training__score_window=6, **changes)
    parent = store.start_parent(base)
    runs: list[str] = []
    for number, (rung, level) in enumerate(levels.items()):
        start = WarmStart(checkpoint="x.pt", run_id=runs[0], episode=10) if runs else None
        last = number == len(levels) - 1
        runs.append(attempt(store, parent, base, number, rung, level=level, collapsing=not last, start=start))
    random = {"random/score": 8.0, "random/score_low": 7.0, "random/score_high": 9.0}
    store.log_metrics(parent, random)
    store.end_parent(parent, "healthy", list(levels)[-1], pd.DataFrame({"rung": list(levels)}), "a note")
    return parent, runs


@pytest.fixture(scope="session")
def nights(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> tuple[Store, dict[str, tuple[str, list[str]]]]:
    """From old to new: one that is running, one without attempts, another configuration, and two seeds of one."""
    root: Path = tmp_path_factory.mktemp("nights")
    shutil.copy(empty_database, root)
    store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
    unfinished = small_config(experiment__name="unfinished")
    running = store.start_parent(unfinished)
    store.start_attempt(running, unfinished, rung="v3", number=0, diff={}, warm_start=None, reason="")
    made = {
        "running": (running, []),
        "nothing": (store.start_parent(unfinished), []),
        "other": experiment(store, 1, {"v3": 30.0}, training__gamma=0.9),
        "first": experiment(store, 1, {"v3": 10.0, "freeze_gat": 12.0, "softmax_only": 20.0}),
        # What `ladder resume` may have been given makes it no other experiment.
        "second": experiment(store, 2, {"v3": 14.0, "softmax_only": 26.0}, budget__hours=3.0, tracking__publish=True),
    }
    return store, made
