"""A score that stands still for long: over phases, over attempts, and how often a healthy run is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.flat import FlatRule
from pipeline.health.history import History
from pipeline.health.monitor import judge, warnings
from pipeline.health.phase import Phase
from pipeline.health.rule_sets import V3
from tests.health.conformance import RuleConformance
from tests.health.test_rules import UPDATE, history

BEFORE_FINE_TUNE = (Phase.WARMUP, Phase.TRANSITION)
RULE = FlatRule(name="flat_score", phases=BEFORE_FINE_TUNE)
GROWTH = np.log(1.15)


def run(
    expected: np.ndarray, first: int = 1, *, seed: int = 0, past: History | None = None, unchanged: bool = False
) -> History:
    """The brief's phases: an expected score (n,) with one game an update, each with a deviation of nine tenths of it.

    `first`: the number of the first episode.
    """
    episodes = np.arange(first, first + len(expected))
    noise = np.random.default_rng(seed).gamma(1.23, 1 / 1.23, len(expected))
    found = history(score=20 * expected * noise, episodes=episodes, phase=np.searchsorted([1000, 3000], episodes))
    moved = {
        name: [(int(step) + (first - 1) * UPDATE, value) for step, value in zip(*found.series(name), strict=True)]
        for name in found.metrics
    }
    return History(moved, past=past, unchanged=unchanged)


def at(found: History) -> int | None:
    """The episode at which the rule fires first."""
    fired = RULE.firings(found)
    return fired[0].detection_step // UPDATE if fired and fired[0].detection_step else None


t = np.arange(1, 5001) / 1000
FLAT, RISE_THEN_FLAT = np.ones(5000), 0.5 + 0.5 * np.minimum(t, 1)
CONVERGES = np.exp(GROWTH * np.minimum(t, 3))


class TestFlat(RuleConformance):
    rule = FlatRule(name="flat", window_episodes=60, check_every=10)
    fires = history(
        score=np.r_[np.zeros(30), np.geomspace(1, 1e6, 30), np.full(40, 7.0)], episodes=np.arange(1, 101) * 2
    )
    quiet = history(score=1.2 ** (np.arange(90) * 2 / 1000), episodes=np.arange(1, 91) * 2)


class TestFlatInSomePhases(RuleConformance):
    rule = FlatRule(name="flat", window_episodes=60, check_every=10, phases=(0, 1))
    fires = history(score=np.full(60, 3.0), episodes=np.arange(1, 61) * 2, phase=[0] * 20 + [1] * 20 + [2] * 20)
    quiet = history(score=np.full(60, 3.0), episodes=np.arange(1, 61) * 2, phase=[0] * 10 + [2] * 50)


def test_the_slope_by_hand() -> None:
    """Without noise the gain is what it is: 5 % per 1000 episodes of a score whose mean is known."""
    episodes = np.arange(1, 2001)
    found = RULE.looks(RULE.scores(run(np.ones(2000))))
    assert len(found) == 1 and found[0].last == 1999
    exact = history(score=100 * 1.05 ** (episodes / 1000), episodes=episodes, phase=np.zeros(2000))
    (look,) = RULE.looks(RULE.scores(exact))
    assert look.holds and look.gain / look.mean == pytest.approx(0.05, abs=0.01)


def test_a_score_that_stands_still_is_seen_after_two_thousand_episodes() -> None:
    flat, rose = ([at(run(shape, seed=seed)) for seed in range(40)] for shape in (FLAT, RISE_THEN_FLAT))
    assert sum(each is not None and each <= 2000 for each in flat) >= 30
    assert sum(each is not None and each <= 3500 for each in rose) >= 34


def test_a_run_that_gains_is_not_ended() -> None:
    """15 % per 1000 episodes for 5000 of them: one wrong verdict in a hundred, at most."""
    assert sum(bool(at(run(np.exp(GROWTH * t), seed=seed))) for seed in range(60)) <= 2


def test_a_standstill_that_begins_in_fine_tune_is_convergence() -> None:
    assert sum(bool(at(run(CONVERGES, seed=seed))) for seed in range(40)) <= 1


def test_games_in_fine_tune_tell_of_a_standstill_before_it() -> None:
    """Some runs that stood still from episode 1000 on are certain only then, and are ended all the same."""
    late = [each for seed in range(40) if (each := at(run(RISE_THEN_FLAT, seed=seed))) is not None and each > 3000]
    assert late


def test_attempts_that_continue_one_another_are_judged_together() -> None:
    """None of them is long enough by itself."""
    alone, together = 0, 0
    for seed in range(15):
        past = run(FLAT[:1500], seed=seed)
        for joined in (None, past):
            found = at(run(FLAT[:1300], 1501, seed=100 + seed, past=joined, unchanged=True))
            alone, together = alone + bool(found and joined is None), together + bool(found and joined is not None)
    assert alone == 0 and together >= 12


def test_looks_that_fell_due_in_the_past_are_not_told_again() -> None:
    past = run(FLAT[:2600])
    (first, *_) = RULE.firings(run(FLAT[:1000], 2601, seed=1, past=past, unchanged=True))
    assert first.detection_step == 3000 * UPDATE and (first.onset_step or 0) < 2600 * UPDATE


def test_an_attempt_that_counts_from_the_beginning_has_no_past() -> None:
    assert at(run(FLAT[:1000], past=run(FLAT[:1900]), unchanged=True)) is None


def test_a_rung_that_lost_score_on_its_way_begins_anew() -> None:
    """Half the score is gone, and comes back; the same drop within a configuration is a score that fell."""
    past, back = run(FLAT[:1500]), 0.5 * np.exp(GROWTH * t[:1400])
    assert at(run(back, 1501, seed=1, past=past)) is None
    assert at(run(back, 1501, seed=1, past=past, unchanged=True)) is not None


def test_a_flat_score_fails_a_run_and_one_that_converges_has_a_warning_at_most() -> None:
    verdict = judge(run(FLAT), V3)
    assert verdict is not None and verdict.name == "reward_plateau"
    assert {each.rule for each in verdict.evidence} == {"flat_score"}
    assert "per 1000 episodes" in verdict.sentence
    assert judge(run(CONVERGES), V3) is None
    assert {each.rule for each in warnings(run(CONVERGES), V3)} <= {"late_plateau"}


def test_a_score_that_is_not_positive_has_to_rise_by_as_much() -> None:
    episodes = np.arange(1, 2001)
    for gain, flat in ((0.0, True), (0.3, False)):
        found = history(score=-50 + gain * 50 * episodes / 1000, episodes=episodes, phase=np.zeros(2000))
        assert bool(RULE.firings(found)) is flat
