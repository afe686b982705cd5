"""Experiments of two configurations, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from pipeline.compare.command import DIFFERENCES, PAGE, compare
from pipeline.compare.from_store import read
from pipeline.compare.sides import change_in_words, one_by_one, sides
from pipeline.compare.statistics import difference
from pipeline.tracking.store import Store

Nights = tuple[Store, dict[str, tuple[str, list[str]]]]


def test_the_first_named_is_a_and_only_what_differs_is_shown(nights: Nights) -> None:
    store, made = nights
    found = sides(read(store, [made["first"][0], made["other"][0]]))
    assert found is not None and found.parents == ((made["first"][0],), (made["other"][0],))
    assert {key: b for key, (_, b) in found.changed.items()} == {"training.gamma": "0.9"}
    facts = {each.name: each for each in found.facts}
    assert (facts["outcome"].a, facts["settled on"].a, facts["settled on"].b) == ("1 healthy", "1 softmax_only", "1 v3")
    change = facts["score"].change
    assert change is not None and change.value == pytest.approx(10.0) and np.isnan(change.low)
    assert change_in_words(facts["score"]).endswith("(one seed each, so no interval)")
    assert facts["attempts"].change is not None and facts["attempts"].change.value == -2


def test_seeds_of_one_configuration_are_one_side(nights: Nights) -> None:
    store, made = nights
    assert sides(read(store, [made["first"][0], made["second"][0]])) is None
    found = sides(read(store, [made[name][0] for name in ("other", "first", "second")]))
    assert found is not None and [len(each) for each in found.parents] == [1, 2]
    score = next(each for each in found.facts if each.name == "score")
    assert "too few seeds" in change_in_words(score)


def test_it_is_told_on_the_terminal_the_page_and_in_json(
    nights: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, made = nights
    compare(store, [made["first"][0], made["other"][0]], tmp_path, Console(width=200, highlight=False))
    assert "side by side" in (said := capsys.readouterr().out) and "training.gamma" in said
    page = (tmp_path / PAGE).read_text()
    assert "Side by side" in page and f"night &lt;1&gt;, seed 1, run {made['first'][0][:8]}" in page
    assert "both configurations are counted together" in said
    told = json.loads((tmp_path / DIFFERENCES).read_text())
    assert [each["key"] for each in told["configuration"]] == ["training.gamma"]
    assert next(each for each in told["facts"] if each["name"] == "score")["change_low"] is None


def test_a_difference_has_an_interval_from_three_runs_each() -> None:
    found = difference(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    assert found.value == 3.0 and found.low <= 3.0 <= found.high and found.high > found.low
    assert np.isnan(difference(np.array([1.0, 2.0]), np.array([4.0, 5.0, 6.0])).low)


def test_parameters_of_a_script_are_compared_one_by_one() -> None:
    told = {"trainer.command": "x", "trainer.parameters": '{"lr": 0.05, "clip": null}'}
    assert one_by_one(told) == {
        "trainer.command": "x",
        "trainer.parameters.lr": "0.05",
        "trainer.parameters.clip": "None",
    }
    cut = {"trainer.parameters": '{"lr": 0.0'}
    assert one_by_one(cut) == cut and one_by_one({"a": "1"}) == {"a": "1"}
