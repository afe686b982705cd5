"""What is retained of a score: the measure, the last games, and the budget of steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import retained as measure
from benchmarks import watchdog_page
from benchmarks.recovery import configuration, go_down
from benchmarks.report import write
from benchmarks.retained import CONTROL, SCORE, SCOUT, experiment, known, last_games, retained, with_scores
from benchmarks.suite import load_suite
from fallbacks.ladder import Plan
from pipeline.attempt.record import Attempt
from pipeline.config import difference
from pipeline.health.history import History
from pipeline.health.verdict import Evidence, Verdict

SUITE = load_suite()


def test_the_share_of_the_controls_gain() -> None:
    assert retained(230.0, 230.0, 180.0) == 1.0 and retained(180.0, 230.0, 180.0) == 0.0
    assert retained(205.0, 230.0, 180.0) == 0.5 and retained(155.0, 230.0, 180.0) == -0.5


def history(*updates: tuple[int, float], before: int = 0) -> History:
    """An attempt: for each update the games that ended and their mean return. `before`: games of its checkpoint."""
    found, finished = History(), before
    for step, (games, mean) in enumerate(updates, start=1):
        finished += games
        found.add("episodes", step, float(finished))
        if games:
            found.add("episode/task_return", step, mean)
    return found


def test_the_last_games_are_weighted_and_no_more_than_they_should_be() -> None:
    assert last_games(history((0, 0.0), (0, 0.0))) is None
    assert last_games(history((0, 0.0), (1, 10.0), (3, 30.0))) == (25.0, 4)
    assert last_games(history((0, 0.0), (50, 0.0), (60, 10.0), (40, 20.0))) == (14.0, SCOUT.last)
    assert last_games(history((0, 0.0), (5, 0.0), (150, 7.0))) == (7.0, 150)
    score, games = last_games(history((2, 100.0), (3, 10.0), before=500)) or (0.0, 0)
    assert (score, games) == (32.5, 4)  # how many of the 502 ended in the first update is not known: one


def test_an_attempt_without_a_game_has_the_policy_of_the_one_before() -> None:
    result = {"rungs": ["v3", "v3"], "remedies": [None, "explore_more"], "runs": ["a", "b"]}
    found = with_scores(result, {"a": history((0, 0.0), (4, 12.0)), "b": history((0, 0.0))})
    assert (found["score"], found["games"], found["scores"]) == (12.0, 4, [12.0, None])
    assert found["kept"] == "v3 + explore_more"


def test_another_game_has_its_own_score() -> None:
    found = history((0, 0.0), (3, 5.0))
    found.add("score", 2, 40.0)
    assert last_games(found, SCORE) == (40.0, 3) and last_games(found, SCOUT) == (5.0, 3)
    config = experiment(SUITE["sharp_router"], SCORE.steps, 3, SCORE)
    assert config.environment.id == "NetHackScore-v0" and config.training.steps == SCORE.steps


def test_remedies_that_never_left_v3_are_what_remedies_alone_would_do() -> None:
    kept = {"rungs": ["v3", "v3"], "score": 220.0}
    assert known("remedies_alone", {"remedies": kept}) == kept | {"same_as": "remedies"}
    assert known("random_order", {"remedies": kept}) is None and known("remedies_alone", {}) is None
    assert known("remedies_alone", {"remedies": {"rungs": ["v3", "v3", "freeze_gat"]}}) is None
    assert known("remedies_alone", {"remedies": {"only_printed": True, "score": 220.0}}) is None


class Stub:
    """A laboratory whose attempts fail after some steps, if they are given more than these."""

    def __init__(self, costs: list[int]) -> None:
        self.costs = costs
        self.given: list[int | None] = []

    def attempt(self, plan: Plan, number: int, faults: Any, most: int | None) -> tuple[Attempt, int]:
        self.given.append(most)
        failed = Verdict(name="expert_collapse", evidence=(Evidence(rule="test"),))
        verdict = failed if most is None or self.costs[number] < most else Verdict(name="healthy")
        run = Attempt(number, plan.rung.name, plan.config, f"{number}", verdict, remedy=plan.remedy)
        return run, self.costs[number] if most is None else min(most, self.costs[number])


def test_all_attempts_together_have_the_steps_of_the_control() -> None:
    config = configuration(SUITE["sharp_router"], "remedies", 21)
    stub = Stub([30, 50, 60])
    found = go_down(stub, config, 100)  # type: ignore[arg-type]
    assert stub.given == [100, 70, 20] and found["steps"] == [30, 50, 20] and found["outcome"] == "healthy"
    labels = list(zip(found["rungs"], found["remedies"], strict=True))
    assert labels == [("v3", None), ("v3", "rebalance_router"), ("freeze_gat", None)]
    unbounded = Stub([30] * 10)
    assert go_down(unbounded, config)["outcome"] == "exhausted" and unbounded.given[0] is None  # type: ignore[arg-type]


def test_the_control_is_the_same_without_the_fault() -> None:
    control = replace(SUITE["base"], name=CONTROL, values={})
    base = experiment(control, 240_000, 3)
    changed = difference(base, experiment(SUITE["gat_too_deep"], 240_000, 3))
    assert changed.keys() - {"preflight.accept"} == {
        "policy.gat_layers",
        "policy.gat_residual",
        "policy.gat_layer_norm",
    }
    assert base.environment.id == "NetHackScout-v0" and base.training.steps == 240_000 and base.training.seed == 3


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seeds, of which the control of one has learnt nothing."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(watchdog_page, "RESULTS", tmp_path)
    monkeypatch.setattr(watchdog_page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(measure, "write", lambda name, content: write(name, content, tmp_path / f"{name}.json"))
    folder = measure.folder(SCOUT, 1000)
    folder.mkdir(parents=True)
    (folder / "random.json").write_text(json.dumps({"score": 180.0}))
    for seed, control in ((1, 230.0), (2, 170.0)):
        said: dict[str, Any] = {"fault": CONTROL, "seed": seed, "strategies": {CONTROL: {"score": control}}}
        (folder / f"control-seed{seed}.json").write_text(json.dumps(said))
        first = {"outcome": "healthy", "verdicts": ["expert_collapse", "healthy"], "games": 100}
        strategies = {
            "remedies": first | {"score": 220.0, "kept": "v3 + rebalance_router"},
            "ladder": first | {"score": 205.0, "kept": "freeze_gat"},
            "restart": first | {"score": 300.0, "games": 1, "outcome": "exhausted", "kept": "seed_4041"},
        }
        said = {"fault": "sharp_router", "seed": seed, "strategies": strategies}
        (folder / f"sharp_router-seed{seed}.json").write_text(json.dumps(said))
    return tmp_path


def test_the_interval_is_over_seeds_with_all_their_faults() -> None:
    figures = [(1, 1.0), (1, 0.0), (2, 0.5), (3, 0.5)]
    value, low, high = measure.over_seeds(figures)
    assert value == 0.5 and (low, high) == (0.5, 0.5)  # each seed's mean is the same, whatever its faults do
    value, low, high = measure.over_seeds([(1, 1.0), (1, 1.0), (2, 0.0), (3, 1.0)])
    assert value == pytest.approx(3 / 4) and low < 0 and high > 1  # three seeds say little
    assert np.isnan(measure.over_seeds([(1, 0.4), (2, 0.6)])[1])


def test_the_report_makes_the_page_of_seeds_whose_control_has_learnt(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = measure.report(SCOUT, 1000).read_text()
    said = capsys.readouterr().out
    assert "no better than random play: seeds [2]" in said and "retained 0.80" in said
    assert "| remedies | 1 | 1 | 0.8 | – | 100 % [3, 100] | `v3 + rebalance_router` 1 |" in page
    assert "| sharp_router | 1 | 0.80 `v3 + rebalance_router` | 0.50 `freeze_gat` | 0.00 `seed_4041` |" in page
    assert "sharp_router | 2" not in page
    assert json.loads((results / "retained.json").read_text())["strategies"]["ladder"]["retained"][0] == 0.5
