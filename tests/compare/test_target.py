"""What it costs to get to a score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.cli import main
from pipeline.compare.command import compare
from pipeline.compare.frames import Comparison, points
from pipeline.compare.from_store import read
from pipeline.compare.page import render
from pipeline.compare.target import by_rung, cost_of_rung, default_target, to_target
from pipeline.tracking.store import Store

Attempts = dict[str, tuple[str, str, bool, list[float]]]
"""Run id → rung, verdict, whether it was trained to its end, and its running score at steps 100, 200 …"""


def night_of(attempts: Attempts) -> Comparison:
    """Attempts that begin at minute 5 and report each minute, with ten steps an episode."""
    rows = [
        {"run_id": run, "parent": "p", "rung": rung, "verdict": verdict, "to_the_end": whole, "begins": 5.0,
         "steps": 100 * len(scores), "trained_steps": 100 * len(scores)}
        for run, (rung, verdict, whole, scores) in attempts.items()
    ]  # fmt: skip
    logged = [
        (run, name, 100 * place, 5.0 + place, value)
        for run, (*_, scores) in attempts.items()
        for place, score in enumerate(scores, start=1)
        for name, value in (("score_window", score), ("episodes", 10.0 * place))
    ]
    return Comparison(pd.DataFrame(), pd.DataFrame(rows), points(logged), {})


NIGHT = night_of(
    {
        "a": ("v3", "healthy", True, [1.0, 6.0, 5.0, 8.0]),
        "b": ("v3", "healthy", True, [1.0, 2.0, 3.0, 6.0]),
        "c": ("low", "healthy", True, [1.0, 5.0]),
        "d": ("low", "expert_collapse", False, [1.0, 1.0]),
        "e": ("low", "running", False, [2.0]),
        "f": ("low", "crash", False, []),
    }
)


def test_the_default_is_the_lowest_median_of_those_trained_to_their_end() -> None:
    assert default_target(NIGHT) == 5.0
    assert np.isnan(default_target(night_of({"d": ("low", "crash", False, [1.0])})))


def test_steps_and_minutes_until_it_is_first_reached() -> None:
    found = to_target(NIGHT)
    assert found.steps_to_target.fillna(-1).to_dict() == {"a": 200, "b": 400, "c": 200, "d": -1, "e": -1, "f": -1}
    assert found.minutes_to_target["a"] == 2.0 and np.isnan(found.minutes_to_target["d"])
    assert found.target_reached.tolist()[:5] == [True, True, True, False, False]
    assert found.target_reached.isna().to_dict()["f"]


def test_what_a_warm_start_brought_is_not_counted() -> None:
    night = night_of({"a": ("v3", "healthy", True, [1.0, 6.0])})
    warm = night.attempts.assign(trained_steps=150)
    assert to_target(Comparison(night.experiments, warm, night.metrics, {}), 6.0).steps_to_target["a"] == 150


def test_an_attempt_that_did_not_get_there_counts_as_later_than_any() -> None:
    rungs = by_rung(NIGHT)
    assert (rungs.reached["v3"], rungs.attempts["v3"], rungs.steps["v3"]) == (2, 2, 300.0)
    assert (rungs.reached["low"], rungs.attempts["low"]) == (1, 2) and np.isnan(rungs.steps["low"])
    assert cost_of_rung(rungs.loc["v3"]) == "2 of 2: 300 steps, 3.0 min"
    assert cost_of_rung(rungs.loc["low"]) == "1 of 2: not reached by half"


def test_a_target_beyond_all_is_said_to_be_out_of_reach(
    nights: tuple[Store, dict[str, tuple[str, list[str]]]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, made = nights
    parents = [made["first"][0], made["second"][0]]
    compare(store, parents, None, Console(width=240, highlight=False), target=1000.0)
    said = capsys.readouterr().out
    assert "to score 1000" in said and said.count("not reached") >= 5 and "0 of 2: not reached by half" in said
    page = render(read(store, parents))
    assert page.count('<th class="n">cost to score 24') == 2 and "cost to score 24" in page and "320 steps" in page


def test_a_target_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--target", "nan"]) == 2
    assert "'nan': must be a number" in capsys.readouterr().err
