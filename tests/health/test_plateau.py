"""Plateau rules: a score that stands still is seen, a score that rises is not, and how many episodes that takes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.history import History
from pipeline.health.monitor import judge, warnings
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule_sets import V3
from tests.health.test_rules import UPDATE, history


def test_a_plateau_is_looked_for_when_a_check_falls_due() -> None:
    rule = PlateauRule(check_every=500)
    for before, now, due in ((498, 499, False), (499, 500, True), (500, 501, False), (501, 1600, True)):
        assert rule.stirs({"score": 1, "episodes": now}, {"score": 1, "episodes": before}) is due


def scores(slope: float, updates: int = 700, seed: int = 0) -> History:
    """Three episodes an update around 20, rising by `slope` over each 1000 episodes."""
    episodes = np.arange(1, updates + 1) * 3
    noise = np.random.default_rng(seed).normal(0, 22 / np.sqrt(3), updates)
    return history(score=20 + slope * episodes / 1000 + noise, episodes=episodes)


def test_over_a_thousand_episodes_hardly_any_standstill_is_certain() -> None:
    (short,) = (each for each in V3 if each.name == "reward_plateau")
    short = short.model_copy(update={"phases": None})
    assert sum(bool(short.firings(scores(0, updates=999, seed=seed))) for seed in range(100)) <= 15


@pytest.mark.parametrize("name", ["reward_plateau", "flat_score"])
def test_with_how_many_episodes_a_plateau_can_be_told_at_all(name: str) -> None:
    (rule,) = (each.model_copy(update={"phases": None}) for each in V3 if each.name == name)
    (first, *_) = rule.firings(history(score=np.full(4000, 7.0), episodes=np.arange(1, 4001)))
    assert first.detection_step == rule.least_episodes * UPDATE


def test_a_score_that_is_always_zero_does_not_rise() -> None:
    episodes = np.arange(1, 701) * 3
    assert PlateauRule().firings(history(score=np.zeros(700), episodes=episodes))


def test_plateau_fires_when_the_gain_is_certainly_small() -> None:
    fell = [PlateauRule().firings(scores(-15, seed=seed)) for seed in range(10)]
    assert sum(bool(each) for each in fell) >= 9
    evidence = fell[0][0]
    assert evidence.detection_step is not None and evidence.onset_step is not None
    assert evidence.onset_step < evidence.detection_step


def test_plateau_is_silent_while_the_score_rises() -> None:
    assert not any(PlateauRule().firings(scores(10, seed=seed)) for seed in range(20))


def test_late_plateau_is_how_a_run_converges() -> None:
    falling = scores(-15)
    for phase, expected in ((1.0, "reward_plateau"), (2.0, None)):
        for step in falling.series("score")[0]:
            falling.add("phase", int(step), phase)
        verdict = judge(falling, V3)
        assert (verdict.name if verdict else None) == expected
    assert [evidence.rule for evidence in warnings(falling, V3)] == ["late_plateau"]


def test_plateau_needs_a_full_window() -> None:
    assert not PlateauRule().firings(scores(-15, updates=320))


def test_plateau_gain_by_hand() -> None:
    rule = PlateauRule(window_episodes=10)
    episodes = np.arange(1, 13)
    measured = rule.gain(2.0 * episodes, episodes)
    assert measured is not None
    assert measured[0] == pytest.approx(20.0) and measured[1] == pytest.approx(20.0)
    assert measured[2] == pytest.approx(15.0)  # mean of 2·(3 … 12)
