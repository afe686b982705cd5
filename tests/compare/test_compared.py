"""Experiments whose rungs were all trained to their end: what is compared with what, and how it is told."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.cli import main
from pipeline.compare.command import TABLE, as_text, compare, log_page, write_page
from pipeline.compare.frames import Comparison
from pipeline.compare.from_store import read
from pipeline.compare.statistics import holm, paired_probability, permutation_p
from pipeline.compare.target import COLUMNS
from pipeline.health.verdict import Verdict
from pipeline.tracking.store import Store
from tests.compare.conftest import attempt
from tests.compare.test_comparison_page import look, needs_chromium
from tests.conftest import small_config

LEVELS = {1: {"v3": 10.0, "softmax_only": 20.0}, 2: {"v3": 30.0, "softmax_only": 32.0}}
"""Seed → rung → level of the score. Between the seeds there is more than between the rungs."""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[Store, list[str]]:
    """Two seeds. v3 is found collapsing and goes on; freeze_gat is cut short in the first, and ends in the second."""
    root = tmp_path_factory.mktemp("compared")
    shutil.copy(empty_database, root)
    store, parents = Store(f"sqlite:///{root / 'mlflow.db'}", root), []
    for seed, levels in LEVELS.items():
        base = small_config(experiment__name="five", training__seed=seed, training__score_window=6, ladder__until="end")
        parent = store.start_parent(base)
        attempt(store, parent, base, 0, "v3", level=levels["v3"], collapsing=True, whole=True)
        attempt(store, parent, base, 1, "freeze_gat", level=99.0, collapsing=seed == 1)
        attempt(store, parent, base, 2, "softmax_only", level=levels["softmax_only"])
        store.log_metrics(parent, {"random/score": 8.0, "random/score_low": 7.0, "random/score_high": 9.0})
        reason = "2 of 3 rungs trained to the end, not freeze_gat" if seed == 1 else "3 of 3 rungs trained to the end"
        store.end_parent(parent, "compared", None, pd.DataFrame({"rung": []}), f"**compared** – {reason}")
        parents.append(parent)
    return store, parents


@pytest.fixture
def night(compared: tuple[Store, list[str]]) -> Comparison:
    return read(*compared)


def test_the_run_is_finished(compared: tuple[Store, list[str]]) -> None:
    store, parents = compared
    assert {store.run(parent).status for parent in parents} == {"FINISHED"}  # type: ignore[union-attr]


def test_only_what_was_trained_to_its_end_counts(night: Comparison) -> None:
    assert night.experiments.outcome.tolist() == ["compared"] * 2 and night.experiments.settled_run.isna().all()
    rungs = night.rungs()
    assert rungs.attempts.to_dict() == {"v3": 2, "freeze_gat": 2, "softmax_only": 2}
    assert rungs.to_the_end.to_dict() == {"v3": 2, "freeze_gat": 1, "softmax_only": 2}
    assert rungs.healthy.to_dict() == {"v3": 0, "freeze_gat": 1, "softmax_only": 2}
    v3 = night.attempts[night.attempts.rung == "v3"]
    assert rungs.score["v3"] == pytest.approx(v3.score.mean()) and v3.verdict.eq("expert_collapse").all()
    assert night.cut_short().run_id.tolist() == [night.attempts.run_id[1]]


def test_rungs_are_compared_seed_by_seed(night: Comparison) -> None:
    """softmax_only is better with each seed, though its first score is below v3's second."""
    better = night.improvement().set_index(["x", "y"])
    assert len(better) == 6
    both = better.loc[("softmax_only", "v3")]
    assert (both.probability, both.seeds) == (1.0, 2) and 0.1 < both.probability_low < 0.2
    one = better.loc[("freeze_gat", "v3")]
    assert (one.probability, one.seeds, one.attempts_x, one.attempts_y) == (1.0, 1, 1, 1)
    assert np.isnan(one.probability_low)


def test_rungs_without_a_seed_in_common_are_compared_all_with_all(night: Comparison) -> None:
    kept = night.attempts[(night.attempts.seed == 1) ^ (night.attempts.rung == "v3")]
    apart = Comparison(night.experiments, kept, night.metrics, night.verdicts)
    found = apart.improvement().set_index(["x", "y"]).loc[("softmax_only", "v3")]
    assert (found.seeds, found.probability) == (0, 0.0)


def test_one_seed_in_two_experiments_is_one_seed() -> None:
    first, second = np.array([2.0, 4.0]), np.array([1.0])
    assert paired_probability([first], [np.array([3.0])]).value == 0.5
    found = paired_probability([first, second], [second, second])
    assert found.value == 0.75 and found.low < 0.75 < found.high
    assert np.isnan(paired_probability([], []).value)


@pytest.mark.parametrize(("wins", "low", "high"), [(5, 0.478, 1.0), (3, 0.147, 0.947), (0, 0.0, 0.522)])
def test_the_interval_over_seeds_is_exact(wins: int, low: float, high: float) -> None:
    x = [np.array([1.0 if seed < wins else -1.0]) for seed in range(5)]
    found = paired_probability(x, [np.array([0.0])] * 5)
    assert found == pytest.approx((wins / 5, low, high), abs=1e-3)


def test_the_number_of_comparisons_is_corrected_for() -> None:
    """Holm's own example has this shape: the smallest counts n times, the next n − 1 times, and none falls again."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.02, np.nan, 0.9]))[[0, 2]] == pytest.approx([0.04, 0.9])
    assert np.isnan(holm(np.array([0.02, np.nan]))[1]) and not len(holm(np.array([])))


def test_p_is_that_of_all_exchanges() -> None:
    x, y = np.array([3.0, 5, 6, 8, 9]), np.array([1.0, 2, 3, 4, 5])
    assert permutation_p(x, y, paired=True) == pytest.approx(2 / 2**5)  # x is higher in each pair: 2 of 32 exchanges
    assert permutation_p(x + 10, y, paired=False) == pytest.approx(2 / 252)
    assert permutation_p(x, x, paired=True) == 1.0 and np.isnan(permutation_p(x[:1], y, paired=False))


def test_profiles_are_shares_of_runs_above_a_score(night: Comparison) -> None:
    found = night.profiles()
    for rung, each in found.groupby("rung", sort=False):
        own = night.attempts[(night.attempts.rung == rung) & night.attempts.to_the_end].score.dropna()
        assert (each.runs == len(own)).all() and each.score.is_monotonic_increasing
        assert each.share.tolist() == [(own > score).mean() for score in each.score]
        assert each.share.is_monotonic_decreasing and each.share.iloc[-1] < 1
    better = night.improvement()
    assert (better.p_holm.dropna() >= better.p[better.p_holm.notna()]).all()


def test_it_is_told_on_the_terminal_and_on_the_page(
    compared: tuple[Store, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, parents = compared
    compare(store, parents, None, Console(width=200, highlight=False))
    said = capsys.readouterr().out
    assert ["random", "policies", "2", "8.0"] in [line.split() for line in said.splitlines()]
    assert "settled policies" not in said and "score (mean of those)" in said
    assert "mean, and 95 % interval by Student's t over runs. Fewer than three runs are too few" in said
    assert "five seed 1: compared" in said and "not freeze_gat" in said
    assert "P(softmax_only scores higher than v3) = 1.00 [0.16, 1.00], 2 shared seeds" in said
    assert "3 comparisons, seed by seed; corrected for their number (Holm), these differ at 5 %: none, and" in said
    page = write_page(read(store, parents), store, tmp_path).read_text()
    assert "random policy (2)  8" in page and "Score by rung: mean, 95 % interval" in page
    assert "Fewer than three runs are too few for an interval" in page
    assert ">2 of 2</b> trained every rung" in page and "Settled" not in page
    assert "softmax_only over v3 (2 seeds)" in page and "3 comparisons, seed by seed" in page
    assert "Share of runs above a score" in page and "softmax_only: 2 runs" in page and "freeze_gat: 1 runs" not in page
    assert page.count("score reached") == 1 and "freeze_gat (1)" in page
    assert "<b>2 of 3 rungs trained to the end, not freeze_gat</b>" in page
    assert "The best score has <b>softmax_only</b>" in page and "1 attempt cut short count" in page


def test_the_table_for_programs(compared: tuple[Store, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    store, parents = compared
    where = f"tracking.root={store.root}"
    assert main(["compare", "--format", "json", *parents, where]) == 0
    rows = json.loads(capsys.readouterr().out)
    night = read(store, parents)
    assert [row["run_id"] for row in rows] == night.attempts.run_id.tolist()
    assert list(rows[0]) == [*night.attempts.columns, *COLUMNS]
    assert rows[0]["score"] == pytest.approx(night.attempts.score[0]) and rows[0]["to_the_end"] is True
    assert {row["score_interval"] for row in rows} == {"Student's t over 3 updates"}
    assert [rows[0][name] for name in ("random", "random_low", "random_high")] == [8.0, 7.0, 9.0]
    assert rows[1]["changed"] == {"policy.gat_frozen": [False, True]} and rows[0]["source"] is None
    assert main(["compare", *parents, where, "--format=csv"]) == 0
    said = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(said) == 6 and float(said[2]["score_low"]) == pytest.approx(night.attempts.score_low[2])
    assert json.loads(said[1]["changed"]) == {"policy.gat_frozen": [False, True]} and said[0]["source"] == ""
    assert main(["compare", "--format", "xml"]) == 2


def test_the_table_is_an_artifact_too_and_may_be_empty(compared: tuple[Store, list[str]]) -> None:
    store, parents = compared
    log_page(store, parents[0], lambda said: pytest.fail(said))
    table = store.artifact(parents[0], TABLE)
    assert table is not None and len(list(csv.reader(io.StringIO(table.decode())))) == 4
    nothing = read(store, parents).attempts.iloc[:0]
    assert as_text(nothing, "csv").count("\n") == 1 and json.loads(as_text(nothing, "json")) == []


def test_numbers_that_are_none(night: Comparison) -> None:
    odd = night.attempts.assign(score=[np.nan, np.inf, -np.inf, 1e-300, 1e300, 0.1])
    values = [row["score"] for row in json.loads(as_text(odd, "json"))]
    assert values[:3] == [None, None, None] and values[5] == 0.1
    assert Verdict(name="healthy").trained_to_the_end


@needs_chromium
def test_the_page_is_legible(compared: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, parents = compared
    night = read(store, parents)
    longest = {"v3": "v2_router_gat", "freeze_gat": "two_experts", "softmax_only": "softmax_only"}
    named = night.attempts.assign(rung=night.attempts.rung.map(longest))
    named.loc[1, "rung"] = "freeze_gat"  # a rung without any score
    page = write_page(Comparison(night.experiments, named, night.metrics, night.verdicts), store, tmp_path)
    seen = look(page, tmp_path, 1280)
    assert seen["over"] == seen["low"] == [] and seen["blank"] == 0 and seen["scroll"] <= seen["width"]
