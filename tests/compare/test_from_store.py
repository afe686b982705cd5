"""Frames from a real store: their schema, their numbers, and which experiments are taken."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import pipeline.compare.frames as frames
from pipeline.compare import load
from pipeline.compare.command import compare
from pipeline.compare.from_store import read
from pipeline.errors import BadInput
from pipeline.tracking import tags
from pipeline.tracking.store import Store
from tests.compare.conftest import BEGINS_TO_FAIL, UPDATES, experiment
from tests.conftest import small_config

Nights = tuple[Store, dict[str, tuple[str, list[str]]]]


def documented(frame: str) -> list[str]:
    """The columns that the schema in the module's docstring names, in its order."""
    assert frames.__doc__ is not None
    section = frames.__doc__.split(f"`{frame}`, one row")[1].split("`, one row")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", section, flags=re.MULTILINE)
    return [name for row in rows for name in row.split(", ") if name != "column"]


def test_schema_is_as_documented(nights: Nights) -> None:
    store, _ = nights
    night = read(store)
    assert list(night.experiments.columns) == documented("experiments")
    assert list(night.attempts.columns) == documented("attempts")
    assert list(night.metrics.columns) == ["run_id", "metric", "step", "minutes", "value"]


def test_columns_have_the_types_that_are_documented(nights: Nights) -> None:
    store, made = nights
    both = (read(store), read(store, [made["nothing"][0]]))  # also where there is no attempt
    for night in both:
        assert night.experiments.seed.dtype == night.attempts.seed.dtype == "Int64"
        assert night.attempts.source_episode.dtype == "Int64"
    assert both[0].experiments.started.dt.tz is not None


def test_default_is_the_newest_experiment_with_its_siblings(nights: Nights) -> None:
    """Siblings differ in the seed alone; the older experiment has another gamma."""
    store, made = nights
    night = read(store)
    assert night.experiments.parent.tolist() == [made["first"][0], made["second"][0]]
    assert night.experiments.seed.tolist() == [1, 2]
    assert night.attempts.run_id.tolist() == [*made["first"][1], *made["second"][1]] and night.older == ()


def test_an_older_run_of_the_same_seed_is_named(empty_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (older, _), (newer, _) = (experiment(empty_store, 1, {"v3": level}) for level in (10.0, 20.0))
    night = read(empty_store)
    assert night.experiments.parent.tolist() == [newer] and night.older == (older,)
    compare(empty_store, [], None, Console(width=200, highlight=False))
    said = capsys.readouterr().out
    assert "left out: an older experiment that trains the same with the same seed" in said
    assert f"ladder compare {newer[:8]} {older[:8]}" in said and "Student's t over its last updates" in said
    assert read(empty_store, [older, newer]).older == ()


def test_chosen_experiments_by_parent_attempt_or_beginning(nights: Nights) -> None:
    store, made = nights
    parent, (only,) = made["other"]
    for word in (parent, only, parent[:12]):
        assert read(store, [word]).experiments.parent.tolist() == [parent]
    assert len(read(store, [made["second"][0], parent, parent]).experiments) == 2
    study = store.start_run(small_config(), "study", {tags.KIND: "study"})
    trial = store.start_run(small_config(), "trial", {tags.KIND: "trial", tags.PARENT: study})
    for run, kind in ((study, "study"), (trial, "trial")):
        with pytest.raises(BadInput, match=f"{run}: is a {kind} without an experiment"):
            read(store, [run])
    with pytest.raises(
        BadInput, match=f"nonsense: no such run in {store.uri}; experiments, newest first: {made['second'][0]}"
    ):
        read(store, ["nonsense"])


def test_load_from_a_root(nights: Nights, tmp_path: object) -> None:
    store, made = nights
    assert load([made["other"][0]], root=store.root).attempts.rung.tolist() == ["v3"]
    assert load([made["other"][0]], uri=store.uri, metrics=["random/score"]).metrics.metric.eq("random/score").any()
    with pytest.raises(BadInput, match="no experiments yet"):
        load(root=f"{tmp_path}/nothing")


def test_numbers_are_those_that_were_logged(nights: Nights) -> None:
    store, made = nights
    parent, (v3, frozen, _) = made["first"]
    night = read(store, [parent])
    first, second, last = night.attempts.itertuples()
    assert (first.verdict, first.rung, first.episodes, first.steps) == ("expert_collapse", "v3", 60, 64 * UPDATES)
    assert first.trained_steps == 64 * UPDATES and first.best_score == 11.0
    assert first.source is None or pd.isna(first.source)
    assert (second.source, second.source_episode) == (v3, 10)
    assert second.changed == {"policy.gat_frozen": [False, True]}
    assert first.evidence.startswith("expert_usage_excess 0.95")
    assert night.verdicts[v3].evidence[0].onset_step == 64 * BEGINS_TO_FAIL
    # The last six episodes are those of three updates: levels +1 and +2, +0 and so on.
    window = [20.0 + update % 3 for update in (UPDATES - 2, UPDATES - 1, UPDATES)]
    assert last.score == pytest.approx(np.mean(window)) and last.score_low <= last.score <= last.score_high
    assert last.score_interval == "Student's t over 3 updates" and (last.random, last.quality) == (8.0, "unknown")
    row = night.experiments.iloc[0]
    assert row.settled_run == last.run_id and row.score == last.score and row.random == 8.0
    history = night.history(frozen, "gradient_norm")
    assert history.step.tolist() == [64 * number for number in range(1, UPDATES + 1)]
    assert history.value.tolist() == [1.0 + number % 2 for number in range(1, UPDATES + 1)]
    assert (history.minutes.diff().dropna() >= 0).all() and history.minutes.iloc[0] >= 0


def test_statistics_over_seeds(nights: Nights) -> None:
    """Runs are the unit, and only those that were trained to their end have a score that counts for the rung."""
    night = read(nights[0])
    rungs = night.rungs()
    assert rungs.attempts.to_dict() == {"v3": 2, "freeze_gat": 1, "softmax_only": 2}
    assert rungs.healthy.to_dict() == {"v3": 0, "freeze_gat": 0, "softmax_only": 2}
    assert rungs.to_the_end.to_dict() == rungs.seeds.to_dict() == {"v3": 0, "freeze_gat": 0, "softmax_only": 2}
    scores = night.attempts[night.attempts.rung == "softmax_only"].score
    assert rungs.score["softmax_only"] == pytest.approx(scores.mean())
    assert night.statistic == "mean" and np.isnan(rungs.score_low["softmax_only"]) and np.isnan(rungs.score["v3"])
    assert night.cut_short().rung.tolist() == ["v3", "freeze_gat", "v3"] and night.improvement().empty
    settled = night.settled()
    assert settled.experiments.to_dict() == {"settled": 2, "random": 2}
    assert settled.better["settled"] == 1.0 and settled.score["random"] == 8.0


def test_running_experiment_can_be_looked_at(nights: Nights) -> None:
    """No verdict, no metrics, no baseline yet; or not even an attempt."""
    store, made = nights
    night = read(store, [made["running"][0]])
    assert night.experiments.outcome.tolist() == ["running"]
    assert night.attempts.verdict.tolist() == ["running"] and np.isnan(night.attempts.score[0])
    assert night.settled().experiments.tolist() == [0, 0]
    assert read(store, [made["nothing"][0]]).attempts.empty
