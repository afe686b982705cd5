"""Rules for any training: each kind passes what every kind must, and the set is quiet on healthy runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.foreign_runs import KINDS, Fault
from pipeline.config import ExperimentConfig
from pipeline.health.collapse import CollapseRule
from pipeline.health.explosion import ExplosionRule
from pipeline.health.frozen import FrozenRule
from pipeline.health.history import History
from pipeline.health.monitor import findings, judge, warnings
from pipeline.health.names import has_word, should_fall, words
from pipeline.health.nonfinite import NonFiniteRule
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.unfinished import UnfinishedRule
from tests.health.conformance import RuleConformance, latest
from tests.health.test_rules import UPDATE, history

GENERIC, NAN = RULE_SETS["generic"], math.nan
RISES = np.r_[np.linspace(0, 10, 30), np.full(20, 10.0)]


class TestThresholdOnNaN(RuleConformance):
    rule = ThresholdRule(
        name="r",
        verdict="numerical_instability",
        conditions=(Condition(metric="x", finite=False),),
        window=3,
        patience=2,
    )
    fires = history(x=[1, NAN, 1, math.inf, 1, 1, 1, -1.797e308, NAN])
    quiet = history(x=[1, NAN, 1, 1, NAN, 1, 1, 1e299, 1])


class TestNonFinite(RuleConformance):
    rule = NonFiniteRule(name="r", metric="x", window=3, patience=3)
    fires = history(x=[NAN, NAN, NAN, 1, NAN, 1, NAN, math.inf, NAN, NAN])
    quiet = history(x=[NAN] * 9 + [1, NAN, NAN, 1])


class TestExplosion(RuleConformance):
    rule = ExplosionRule(name="r", metric="x", window=4, patience=3)
    fires = history(x=[1, -2, 1, 0, 2, 1e4, 1, 1e5, 1e5, 1e5, 1e5])
    quiet = history(x=[1, -2, 1, 0, 2, 1e4, 1, 1, 1, 1e9, 1e9, 1, 1, 1, 50, 50, 50, 50, -1e9, -1e9, -1e9, -1e9])


class TestCollapse(RuleConformance):
    rule = CollapseRule(name="r", metric="score", smooth=3, lasts=20)
    fires = history(score=np.r_[RISES, np.zeros(40)])
    quiet = history(score=np.r_[RISES, np.zeros(9), RISES, np.full(40, 4.0)])


class TestCollapseOfWhatShouldFall(RuleConformance):
    rule = CollapseRule(name="r", metric="error", smooth=3, lasts=10)
    fires = history(error=np.r_[-RISES, np.zeros(40)])
    quiet = history(error=np.r_[RISES, np.full(40, 20.0)])


class TestFrozen(RuleConformance):
    rule = FrozenRule(name="r", metric="loss", reports=5)
    fires = history(loss=[3, 3, 3, 3, 3, 3, 3])
    quiet = history(loss=[3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0])


class TestPlateauByReports(RuleConformance):
    """Without `episodes`, each report counts as one; and a loss that falls is no plateau."""

    rule = PlateauRule(name="r", metric="loss", window_episodes=40)
    fires = history(loss=np.r_[np.arange(50, 0, -1), np.full(80, 1.0)])
    quiet = history(loss=np.arange(130, 0, -1))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("sb3", "cartpole")])
def test_generic_is_quiet_on_healthy_runs_and_sees_nan(kind: str) -> None:
    with np.errstate(all="ignore"):
        for seed in (1, 2):
            assert judge(KINDS[kind](seed, None).history, GENERIC, ended=True) is None
        broken = KINDS[kind](1, Fault(nan=True))
    verdict = judge(broken.history, GENERIC, ended=True)
    assert verdict is not None and verdict.name == "numerical_instability" and broken.onset is not None
    assert (verdict.evidence[0].detection_step or 0) / 10 - 1 - broken.onset == 4


def ended(**series: object) -> str | None:
    verdict = judge(history(**series), GENERIC, ended=True)
    return None if verdict is None else verdict.evidence[0].rule


def test_a_training_that_ends_with_nan_is_not_healthy_and_one_nan_is_a_warning() -> None:
    assert ended(loss=[3, 2, 1, NAN]) == ended(train__nll=[NAN]) == ended(loss=[1, math.inf]) == "nan_loss"
    assert judge(history(loss=[3, 2, 1, NAN]), GENERIC) is None  # while it runs
    assert ended(loss=[3, NAN, 2, 1]) is None
    assert [each.rule for each in warnings(history(loss=[3, NAN, 2, 1]), GENERIC)] == ["not_a_number"]
    # Mixed precision skips its first steps, and a mean over no episode is NaN.
    assert ended(loss=[3, 2, 1], grad_norm=[math.inf, math.inf, 1]) is None
    assert ended(loss=[3, 2, 1], score=[1, NAN, NAN], system__gpu_error=[1, NAN, NAN]) is None


def test_nan_hides_nothing_else() -> None:
    rule = ThresholdRule(
        name="r", verdict="gradient_explosion", conditions=(Condition(metric="x", above=1, above_median=3),), grace=2
    )
    (found,) = rule.firings(history(x=[1, NAN, 1, 1, NAN, NAN, 1, 4]))
    assert found.detection_step == 8 * UPDATE and not rule.stirs({"x": NAN}, {})
    outside = ThresholdRule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", outside=(0, 1)),))
    assert outside.firings(history(x=[NAN] * 9)) == [] and not outside.stirs({"x": NAN}, {})
    flat = np.r_[np.full(60, 3.0), NAN, np.full(60, 3.0)]
    assert PlateauRule(window_episodes=40).firings(history(score=flat, episodes=np.r_[NAN, np.arange(1.0, 121)]))


@pytest.mark.parametrize(
    ("progress", "rule"),
    [
        ([0.25, 0.5, 0.75, 1.0], None),
        ([0.0, 0.25, 0.5, 0.75], None),  # reported before each round
        ([0.1, 0.2, 0.3], "unfinished"),
        ([0.4], "unfinished"),
        ([0.0], None),  # the only round of one
        ([NAN, 0.5, NAN, 0.6], "unfinished"),
        ([0.5, 0.6, NAN], None),
        ([NAN], None),
        ([25.0, 50.0], None),  # per cent
    ],
)
def test_progress_says_whether_training_was_done(progress: list[float], rule: str | None) -> None:
    assert ended(progress=progress) == rule
    assert findings(history(progress=progress), GENERIC) == []


def test_the_last_progress_is_that_of_the_newest_step() -> None:
    late = History({"progress": [(30, 1.0), (10, 0.3), (20, 0.6)]})
    assert UnfinishedRule(name="r").at_exit(late) == []


def test_a_loss_that_never_changes_and_terms_that_may() -> None:
    same, falls = np.full(60, 2.5), np.linspace(3, 1, 60)
    assert ended(train_loss=same) == "frozen_loss"
    assert ended(train_loss=same[:49]) is None  # too few to say so
    assert ended(loss=falls, aux_loss=same) is None  # a term whose coefficient is 0
    assert ended(loss=np.zeros(60)) is None
    assert ended(val_loss=same) is None  # every tenth time the same checkpoint
    live = judge(history(loss=np.full(120, 2.5)), GENERIC)
    assert live is not None and live.evidence[0].detection_step == 100 * UPDATE


def test_a_score_that_stays_is_a_warning() -> None:
    constant = history(score=np.zeros(60), loss=np.linspace(3, 1, 60))
    assert judge(constant, GENERIC, ended=True) is None
    assert [each.rule for each in warnings(constant, GENERIC, ended=True)] == ["constant_score"]
    still = history(score=10 + np.random.default_rng(0).normal(size=400))
    assert "standstill" in {each.rule for each in warnings(still, GENERIC)}


def test_performance_that_is_lost_at_the_end_is_not_healthy() -> None:
    lost = np.r_[RISES, RISES + 10, np.zeros(25)]
    assert judge(history(reward=lost), GENERIC) is None
    assert ended(reward=lost) == "lost_performance" and ended(intrinsic_reward=lost) is None
    assert ended(val_accuracy=lost) is None  # overfitting


def test_polls_look_at_the_newest_values_only() -> None:
    stirred = {rule.name for rule in GENERIC if rule.stirs({"loss": 0.5, "grad_norm": 2.0, "progress": 0.1}, {})}
    assert stirred <= {"frozen_loss", "nothing_learnt", "rising_loss"}
    assert all(rule.patient for rule in GENERIC if rule.name in stirred)
    assert {rule.name for rule in GENERIC if rule.stirs({"loss": NAN}, {})} >= {"nan_loss", "not_a_number"}


def test_every_generic_rule_stirs_where_it_fires() -> None:
    run = history(loss=np.r_[np.full(120, 2.0), np.full(9, 1e6), [NAN] * 20], reward=np.r_[RISES * 10, np.zeros(99)])
    for rule in GENERIC:
        for evidence in rule.firings(run):
            at = evidence.detection_step or 0
            seen = History(
                {name: [(s, v) for s, v in zip(*run.series(name), strict=True) if s <= at] for name in run.metrics}
            )
            assert rule.stirs(latest(seen), {}), rule.name


def test_of_many_metrics_those_with_short_names_are_judged() -> None:
    rule = NonFiniteRule(name="r", words=("grad",))
    names = [f"grad/layer.{index}.weight" for index in range(1000)] + ["grad_norm", "system/grad", "degrade"]
    among = rule.among(names)
    assert len(among) == 50 and among[0] == "grad_norm" and not {"system/grad", "degrade"} & set(among)


def test_names_have_words() -> None:
    assert words("rollout/ep_rew_mean") == ("rollout", "ep", "rew", "mean")
    assert words("trainLoss.2") == ("train", "loss", "2")
    assert has_word("trainloss", ["*loss"]) and not has_word("glossary", ["loss", "*loss"])
    assert should_fall("eval/wer") and not should_fall("eval/accuracy")


def test_the_default_rules_are_those_of_the_trainer() -> None:
    own, foreign = ExperimentConfig(), ExperimentConfig.model_validate({"trainer": {"command": ["x"]}})
    assert (own.health.rules, foreign.health.rules) == ("v3", "generic")
    chosen = ExperimentConfig.model_validate({"trainer": {"command": ["x"]}, "health": {"rules": "none"}})
    assert chosen.health.rules == "none" and chosen.health.build() == ()
    asked = foreign.with_values({"health.override": {"reward_plateau": {"metric": "x", "phases": None}}})
    assert [rule.name for rule in asked.health.build()][-1] == "reward_plateau"
