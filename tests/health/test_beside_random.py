"""A score beside that of random play: what is a warning, what is a verdict, and how often chance alone is."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.beside_random import BesideRandomRule
from pipeline.health.history import History
from pipeline.health.monitor import judge, warnings
from pipeline.health.rule_sets import V3
from tests.health.conformance import RuleConformance
from tests.health.test_rules import UPDATE, history

RULES = {rule.name: rule for rule in V3 if isinstance(rule, BesideRandomRule)}


def run(factor: float | np.ndarray, updates: int = 700, seed: int = 0, games: int = 100) -> History:
    """Three episodes an update, scored like `factor` times random play, whose mean of 20 was measured on some games.

    `factor`: one number, or (updates,).
    """
    random = np.random.default_rng(seed)
    score = factor * random.exponential(20, (updates, 3)).mean(axis=1)
    mean, error = random.exponential(20, games).mean(), 20 / np.sqrt(games)
    made = history(score=score, episodes=np.arange(1, updates + 1) * 3)
    beside = (("random/score", mean), ("random/score_low", mean - 2 * error), ("random/score_high", mean + 2 * error))
    for name, value in beside:
        made.add(name, UPDATE, float(value))
    return made


class TestNotAbove(RuleConformance):
    rule = BesideRandomRule(name="r", window_episodes=90, from_episode=150, check_every=30, margin=0.5)
    fires, quiet = run(1.0, updates=100), run(2.5, updates=100)


class TestCertainlyBelow(RuleConformance):
    rule = BesideRandomRule(name="r", window_episodes=90, from_episode=90, check_every=40, phases=(0, 1, 2))
    fires, quiet = run(0.3, updates=100), run(1.0, updates=100)
    for each in (fires, quiet):
        for step in each.series("score")[0]:
            each.add("phase", int(step), 1.0)


class TestNoGain(RuleConformance):
    rule = BesideRandomRule(name="r", window_episodes=90, from_episode=150, check_every=30, margin=1, spares_gains=True)
    fires, quiet = run(1.0, updates=100), run(np.linspace(0.1, 2, 100), updates=100)


def test_a_run_that_has_learnt_nothing_has_a_verdict_of_its_own() -> None:
    """With as many games for the baseline as `experiments/nethack.yaml` plays."""
    found = [judge(run(1.0, seed=seed, games=1000), V3) for seed in range(40)]
    reasons = [each.evidence[0].rule for each in found if each is not None and each.name == "reward_plateau"]
    assert reasons.count("not_above_random") >= 32
    told = next(each.sentence for each in found if each is not None and each.evidence[0].rule == "not_above_random")
    assert "1.25 × random play" in told and "99% confidence" in told


def test_a_score_that_is_a_quarter_above_random_play_is_hardly_ever_taken_for_less() -> None:
    for games in (100, 1000):
        runs = [run(1.25, updates=1600, seed=seed, games=games) for seed in range(150)]
        assert sum(bool(RULES["not_above_random"].firings(each)) for each in runs) <= 4


def test_a_run_that_begins_to_learn_late_is_spared() -> None:
    """Random play's score to episode 1000, and as much more per 1000 from there."""
    rises = 1 + np.maximum(np.arange(1600) * 3 / 1000 - 1, 0)
    for seed in range(40):
        late = run(rises, updates=1600, seed=seed, games=1000)
        assert judge(late, [RULES["not_above_random"], RULES["below_random"]]) is None


def test_while_a_gain_can_be_seen_it_goes_on_however_low_it_is() -> None:
    low = run(np.linspace(0.3, 1.0, 700), seed=1, games=1000)
    rule = RULES["not_above_random"]
    assert rule.firings(low) == [] and "a gain can be seen" in rule.explain(low)
    assert rule.model_copy(update={"spares_gains": False}).firings(low)


def test_a_run_that_learns_nothing_is_warned_of_and_goes_on() -> None:
    found = [[each.rule for each in warnings(run(1.0, seed=seed), V3)] for seed in range(40)]
    assert sum("as_random" in each for each in found) >= 32
    assert sum(judge(run(1.0, seed=seed), [RULES["below_random"]]) is not None for seed in range(40)) <= 2


def test_a_run_that_learns_is_not_warned_of() -> None:
    assert not any(RULES["as_random"].firings(run(2.0, seed=seed)) for seed in range(40))


def test_only_what_is_certainly_worse_is_a_verdict() -> None:
    found = [judge(run(0.5, seed=seed), [RULES["below_random"]]) for seed in range(20)]
    assert sum(each is not None and each.name == "reward_plateau" for each in found) >= 18
    verdict = next(each for each in found if each is not None)
    assert verdict.trusts(500 * UPDATE - 1) or verdict.evidence[0].last_good_step == verdict.detection_step


def test_however_often_it_looks_chance_is_seldom_certain() -> None:
    """A policy exactly like random play, looked at 40 times."""
    often = BesideRandomRule(name="r", window_episodes=100, from_episode=100, check_every=50)
    wrong = sum(bool(often.firings(run(1.0, seed=seed))) for seed in range(200))
    assert wrong <= 20  # 5 %, and what chance adds to it


@pytest.mark.parametrize("episodes", [999, 1000])
def test_nothing_is_said_before_so_many_episodes(episodes: int) -> None:
    updates = np.arange(1, episodes + 1)
    made = history(score=np.zeros(episodes), episodes=updates)
    for name in ("random/score", "random/score_low", "random/score_high"):
        made.add(name, 0, 5.0)
    found = RULES["below_random"].firings(made)
    assert [each.detection_step for each in found] == ([1000 * UPDATE] if episodes == 1000 else [])


def test_without_random_play_it_says_why_it_is_silent() -> None:
    made = history(score=np.ones(1200), episodes=np.arange(1, 1201))
    assert RULES["as_random"].firings(made) == []
    assert "random/score was never logged" in RULES["as_random"].explain(made)


def test_a_run_that_stays_like_random_play_is_warned_of_once_until_it_rises() -> None:
    assert len(RULES["as_random"].firings(run(1.0, updates=1500, seed=3))) == 1


def test_a_margin_is_above_random_play_whatever_its_sign() -> None:
    """Random play has −20: −12 is certainly less than 0.5 × 20 above it, −8 is not."""
    rule = RULES["as_random"]
    for score, fires in ((-12.0, True), (-8.0, False)):
        made = history(score=np.full(1200, score), episodes=np.arange(1, 1201))
        for name in ("random/score", "random/score_low", "random/score_high"):
            made.add(name, 0, -20.0)
        assert bool(rule.firings(made)) is fires
