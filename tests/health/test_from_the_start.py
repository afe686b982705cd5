"""What goes wrong before a run has a past: explosions at the first reports, and trainings that learn nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.health.gain import gain
from pipeline.health.history import History
from pipeline.health.monitor import findings, judge, never_judged, rules_for, warnings
from pipeline.health.names import NO_RATES, RATES, has_word
from pipeline.health.no_gain import NoGainRule
from pipeline.health.outset import OutsetRule
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.still import StillRule
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.zero_rate import ZeroRateRule
from tests.health.conformance import RuleConformance, is_one_line
from tests.health.test_rules import history

GENERIC = RULE_SETS["generic"]
RANDOM = np.random.default_rng(5)
NOISE = RANDOM.normal(size=300)
SPREAD = np.exp(0.4 * NOISE)
WAVES = np.sin(np.arange(300) / 3)


class TestOutset(RuleConformance):
    rule = OutsetRule(name="r", metric="x", lasts=10)
    fires = history(x=[2, 1, *[1e4] * 20])
    quiet = history(x=[2, 1, *[1e4] * 7, *[2] * 20])


def said(series: Mapping[str, Any]) -> tuple[str | None, set[str]]:
    """The rule that fails an ended training, and those that warn."""
    run = history(**series)
    verdict = judge(run, GENERIC, ended=True)
    return verdict and verdict.evidence[0].rule, {each.rule for each in warnings(run, GENERIC, ended=True)}


def exploded(**series: Any) -> bool:
    verdict = judge(history(**series), GENERIC, ended=True)
    return verdict is not None and verdict.name == "gradient_explosion"


@pytest.mark.parametrize(
    "loss",
    [
        np.r_[2.3, 1e5 * SPREAD[:40]],
        np.r_[2.3, np.full(40, 2.3e4)],  # jumps, and is constant
        np.r_[2.3, 1e6, 1e5, 1e4, 50 * SPREAD[:40]],  # comes back, to far above
        np.r_[2.3, 2.0, 400 * SPREAD[:30]],
        np.r_[0.0, 3e3 * SPREAD[:40]],
        np.r_[np.nan, 2.3, 1e5 * SPREAD[:40]],
        np.r_[-20.0, 1e6 * SPREAD[:40]],
        np.r_[2.3, 900, 800, 850, 870, 820],  # a report an epoch
        np.exp(np.linspace(0, 7, 60)),  # slowly
    ],
    ids=["noise", "constant", "plateau", "hundredfold", "from 0", "NaN first", "from below 0", "epochs", "slow"],
)
def test_a_loss_that_explodes_at_once_is_not_healthy(loss: np.ndarray) -> None:
    assert exploded(train_loss=loss)


def test_an_early_explosion_is_seen_while_training_goes_on() -> None:
    run = history(loss=np.r_[2.3, 1e5 * SPREAD[:60]], grad_norm=np.r_[1.0, 1e6 * SPREAD[:60]])
    verdict = judge(run, GENERIC)
    assert verdict is not None and verdict.name == "gradient_explosion"
    assert (verdict.evidence[0].detection_step or 0) <= 20 * (verdict.evidence[0].onset_step or 0)


T = np.arange(200) / 200
RETURNS = 300 * (1 - np.exp(-5 * T))
LATE = np.where(T > 0.1, 2000.0, 0.0) * (1 - np.exp(-8 * T))


@pytest.mark.parametrize(
    "series",
    [
        {"train/value_loss": 1e-6 + 0.05 * RETURNS**2 * SPREAD[:200], "train/loss": 0.1 + 0.02 * RETURNS**2,
         "rollout/ep_rew_mean": RETURNS},
        {"critic_loss": 1e-6 + 0.1 * LATE**2 * SPREAD[:200], "loss": 1e-6 + 0.1 * LATE**2, "reward": LATE,
         "grad_norm": 1e-6 + LATE * SPREAD[:200]},
        {"critic_loss": np.r_[1e-6, np.ones(60)], "loss": np.linspace(2, 1, 61)},
        {"loss": 5 - 500 * np.minimum(1, 3 * T), "elbo": 500 * np.minimum(1, 3 * T) - 5},
        {"loss": np.r_[0, 2 * np.exp(-3 * T)], "acc": np.r_[0, T]},
        {"loss": np.r_[2, [1e7] * 6, 2 * np.exp(-3 * T)], "grad_norm": np.r_[1, [1e9] * 6, SPREAD[:200]]},
        {"loss": np.exp(-3 * T), "val_loss": np.r_[0.1, np.linspace(0.1, 40, 60)]},
        {"loss": np.exp(-3 * T), "loss_scale": np.r_[1, 2.0 ** np.arange(17).repeat(10)]},
    ],
    ids=["returns", "late reward", "critic", "likelihood", "from 0", "warm-up spikes", "overfit", "loss scale"],
)  # fmt: skip
def test_healthy_growth_is_no_explosion(series: dict[str, np.ndarray]) -> None:
    assert said(series)[0] is None
    assert judge(history(**series), GENERIC) is None


def test_what_the_metric_alone_cannot_tell_is_a_warning() -> None:
    """Losses of parts may grow so, and no score says whether they should."""
    rule, warned = said({"critic_loss": np.r_[1.0, 2e5 * SPREAD[:40]]})
    assert rule is None and "far_above_start" in warned
    rule, warned = said({"accuracy": np.r_[0.9, 0.1 + 0.01 * NOISE[:60]]})
    assert rule is None and "no_gain" in warned
    # A score that stays small explains no such loss.
    assert exploded(value_loss=np.r_[1.0, 2e5 * SPREAD[:40]], loss=np.r_[1.0, 1e5 * SPREAD[:40]], reward=NOISE[:41])


def test_a_training_without_any_gain_is_told_with_its_numbers() -> None:
    (told,) = (
        each for each in warnings(history(loss=2.3 + 0.1 * NOISE[:90]), GENERIC, ended=True) if each.metric == "loss"
    )
    assert told.rule == "nothing_learnt" and is_one_line(told.sentence())
    assert (
        "no gain can be seen in loss over 90 reports: mean 2.278 in the first third, 2.28 in the last" in told.threshold
    )
    assert "no_gain" in said({"ep_rew_mean": 20 + NOISE[:60], "loss": np.linspace(3, 1, 60)})[1]
    assert "nothing_learnt" not in said({"loss": 2.3 + 0.1 * NOISE[:11]})[1]  # too few to tell


@pytest.mark.parametrize(
    ("series", "rule"),
    [
        ({"loss": 20 + 3 * NOISE[:90], "r2": np.full(90, -0.2)}, "learns_nothing"),
        ({"loss": 9 + 0.1 * NOISE[:90]}, "learns_nothing"),
        ({"loss": 20 + 3 * NOISE[:90]}, None),  # it may have gained a hundredth
        ({"loss": 20 + 3 * NOISE[:90], "r2": 0.1 * NOISE[:90]}, None),  # a score that changes may yet rise
        ({"loss": 20 + 3 * NOISE[:40], "r2": np.full(40, -0.2)}, None),  # too few to be sure
        ({"train/loss": 2.3 + 0.02 * NOISE[:36], "val/acc": 0.1 + 0.01 * NOISE[40:76]}, "learns_nothing"),
        ({"train/loss": 2.3 + 0.02 * NOISE[:29], "val/acc": 0.1 + 0.01 * NOISE[40:69]}, None),  # too few reports
        ({"train/loss": 2.3 + 0.02 * NOISE[:36], "val/acc": 0.1 + 0.04 * NOISE[40:76]}, None),  # a gain may be hidden
        ({"train/loss": 0.05 + 4e-4 * NOISE[:36], "val/acc": 0.98 + 0.001 * NOISE[40:76]}, None),  # nothing is left
        ({"loss": 1 + 0.01 * WAVES[:90], "reward": 50 + WAVES[:90]}, None),  # something happens: levels, opponents
        ({"loss": 20 + 3 * NOISE[:90], "accuracy": np.ones(90)}, None),  # there is nothing left to gain
        ({"loss": np.linspace(3, 1, 90), "r2": np.full(90, -0.2)}, None),
    ],
)
def test_what_learns_nothing_for_sure_fails(series: dict[str, np.ndarray], rule: str | None) -> None:
    assert said(series)[0] == rule


@pytest.mark.parametrize(
    "series",
    [
        {"loss": np.linspace(3, 1, 30)},
        {"loss": np.r_[2.3, 0.01 * SPREAD[:60]], "accuracy": np.r_[0.1, np.clip(0.98 + 0.005 * NOISE[:60], 0, 1)]},
        {"loss": 2 + NOISE[:90], "reward": T[:90] * 100 + NOISE[:90]},  # the score is proof
        {"d_loss": 1 + 0.1 * NOISE[:90], "policy_loss": NOISE[:90], "kl_loss": SPREAD[:90]},
        {"success": (RANDOM.random(200) < T).astype(float)},
        {"loss": np.zeros(60)},
    ],
    ids=["line", "at once", "score", "parts", "successes", "at its end"],
)
def test_a_gain_is_seen(series: dict[str, np.ndarray]) -> None:
    assert not said(series)[1] & {"nothing_learnt", "no_gain"}


def test_noise_is_rarely_a_gain_and_moving_means_neither() -> None:
    rows = np.random.default_rng(1).normal(size=(200, 120))
    means = [np.convolve(row, np.ones(20) / 20, "valid") for row in rows]
    of_noise, of_means = [gain(row) for row in rows], [gain(row) for row in means]
    assert sum(each is not None and each.seen for each in of_noise) < 20
    assert sum(each is not None and each.seen for each in of_means) < 60
    assert gain(rows[0][:29]) is None


def test_a_rate_of_0_from_the_start_to_the_end() -> None:
    flat, falls = 2.3 + 0.3 * NOISE[:60], np.linspace(3, 1, 60)
    assert said({"train/learning_rate": np.zeros(60), "loss": flat})[0] == "zero_rate"
    assert said({"lr": np.zeros(60), "loss": 2.3 + 0.02 * NOISE[:60]})[0] == "zero_rate"  # the cause comes first
    assert said({"lr": np.zeros(12), "loss": flat[:12]})[0] == "zero_rate"
    assert said({"lr": np.zeros(11), "loss": flat[:11]}) == (None, {"rate_logged_as_zero", "few_reports"})
    assert said({"lr": np.zeros(60), "loss": falls}) == (None, {"rate_logged_as_zero"})  # rounded by the script
    for rate in (np.r_[np.zeros(59), 1e-9], np.r_[1e-3, np.zeros(59)], np.zeros(9)):
        assert said({"lr": rate, "loss": flat[: len(rate)]})[0] is None
    assert said({"lr-Adam/pg1": np.zeros(60), "lr-Adam/pg2": np.full(60, 1e-3), "loss": falls}) == (None, set())


@pytest.mark.parametrize("name", ["lr", "learning_rate", "train/learning_rate", "actor_lr", "lr-Adam/pg1", "trainLr"])
def test_names_of_learning_rates(name: str) -> None:
    assert has_word(name, RATES) and not has_word(name, NO_RATES)


@pytest.mark.parametrize("name", ["lr_scale", "lr_decay", "learning_starts", "success_rate", "min_lr", "rate_learning"])
def test_names_that_are_none(name: str) -> None:
    assert not has_word(name, RATES) or has_word(name, NO_RATES)


def test_what_goes_on_from_a_checkpoint_may_have_nothing_to_gain() -> None:
    converged = history(loss=0.19 + 0.001 * NOISE[:90], accuracy=np.full(90, 0.95))
    assert judge(converged, rules_for(GENERIC, warm_start=False), ended=True) is not None
    rules = rules_for(GENERIC, warm_start=True)
    assert judge(converged, rules, ended=True) is None and warnings(converged, rules, ended=True) == []


@pytest.mark.parametrize(
    ("series", "warned"),
    [
        ({"loss": [2.0, 1.0]}, True),
        ({"loss": [2.0], "val/acc": [0.5, 0.6]}, True),
        ({"loss": np.linspace(2, 1, 11)}, True),
        ({"loss": np.linspace(2, 1, 12), "val/acc": [0.5]}, False),
        ({"speed": [1.0, 2.0]}, False),  # no loss and no score: the other rules say so
    ],
)
def test_too_few_reports_are_told(series: dict[str, Any], warned: bool) -> None:
    rule, warnings_said = said({name: np.asarray(values) for name, values in series.items()})
    assert rule is None and ("few_reports" in warnings_said) is warned


@pytest.mark.parametrize("reports", [12, 15, 20, 29])
def test_a_dozen_reports_are_enough_for_a_warning(reports: int) -> None:
    """A training of as many epochs that learns nothing is not silently healthy, and one that learns is not warned."""
    nothing = {"train/loss": 2.3 + 0.01 * NOISE[:reports], "val/acc": 0.1 + 0.005 * NOISE[100 : 100 + reports]}
    assert said(nothing) == (None, {"nothing_learnt", "no_gain"})
    falls = np.exp(-np.arange(reports) / 3)
    assert said({"train/loss": 0.3 + falls + 0.01 * NOISE[:reports], "val/acc": 0.9 - 0.5 * falls}) == (None, set())


def test_a_score_that_rises_while_no_loss_moves() -> None:
    """DQN with a learning rate of 0: exploration fades out, and the return rises all the same."""
    rises = {"charts/episodic_return": np.linspace(20, 90, 60) + NOISE[:60]}
    still = {"losses/td_loss": 1.03 + 0.01 * NOISE[60:120], "losses/q_values": -0.07 + 1e-4 * NOISE[120:180]}
    assert said({**rises, **still}) == (None, {"losses_stand_still"})
    assert said({**rises, **still, "losses/q_values": np.linspace(-0.07, 40, 60)}) == (None, set())
    assert (
        "losses_stand_still" not in said({"g_loss": 0.7 + 0.01 * NOISE[:60], "d_loss": 1.4 + 0.01 * NOISE[60:120]})[1]
    )


def test_a_policy_that_no_update_reaches() -> None:
    """The divergence from the policy before becomes exactly 0, while the critic's loss still falls."""
    score, loss = {"ep_rew_mean": 17 + NOISE[:60]}, {"value_loss": np.linspace(9e6, 1e6, 60)}
    saturated = {"approx_kl": np.r_[9000.0, 3.0, np.zeros(58)]}
    assert said({**score, **loss, **saturated})[0] == "policy_no_longer_moves"
    for healthy in (
        {"ep_rew_mean": np.linspace(17, 90, 60)},  # it learns
        {"approx_kl": np.zeros(60)},  # one pass over the samples: the ratio is 1, and the divergence always 0
        {"approx_kl": np.r_[9000.0, 3.0, np.zeros(57), 1e-9]},
    ):
        assert said({**score, **loss, **saturated, **healthy})[0] is None
    assert said({**score, **loss})[0] is None


@pytest.mark.parametrize(
    "rule",
    [
        NoGainRule(name="r", metric="x"),
        ZeroRateRule(name="r", metric="x"),
        StillRule(name="r", metric="x", scores=("x",)),
    ],
)
def test_rules_of_the_end_speak_in_single_lines_and_fire_at_the_end_alone(rule: Rule) -> None:
    flat = history(x={ZeroRateRule: np.zeros(40), StillRule: 9 + 0.1 * NOISE[:40]}.get(type(rule), NOISE[:40]))
    (evidence,) = rule.at_exit(flat)
    assert rule.firings(flat) == [] and evidence.metric == "x" and not rule.stirs({"x": 0.0}, {})
    for text in (*rule.describe(), rule.explain(flat), evidence.sentence()):
        assert is_one_line(text)
    assert rule.curves(flat, evidence) and type(rule).model_validate(rule.model_dump()) == rule


def test_a_metric_with_several_names_is_judged_once_under_its_own() -> None:
    points = [(10 * (index + 1), float(value)) for index, value in enumerate(20 + NOISE[:60])]
    points[3] = (40, float("nan"))
    names = {"score": points, "rollout/ep_rew_mean": points, "score_window": points}
    aliases = {"score": "rollout/ep_rew_mean", "score_window": "rollout/ep_rew_mean"}
    told = warnings(History(names, aliases), GENERIC, ended=True)
    assert {each.metric for each in told} == {"rollout/ep_rew_mean"}
    assert len({each.rule for each in told}) == len(told) >= 2
    assert list(History(names, aliases).not_finite()) == ["rollout/ep_rew_mean"]
    # The script's own name has no word of a score: one of the others is judged.
    foreign = History({"score": points, "score_window": points, "x": points}, dict.fromkeys(aliases, "x"))
    assert {each.metric for each in warnings(foreign, GENERIC, ended=True)} == {"score"}
    own = ThresholdRule(name="own", verdict="mine", conditions=(Condition(metric="score", above=1),))
    assert findings(History(names, aliases), [own])[0].evidence.metric == "score"


def test_a_verdict_of_ones_own_says_what_its_rule_means() -> None:
    own = ThresholdRule(
        name="own", verdict="mine", conditions=(Condition(metric="x", above=1),), meaning="The arm has\nhit the table."
    )
    verdict = judge(history(x=[2.0]), [own])
    assert verdict is not None and verdict.meaning() == "The arm has hit the table"
    assert type(verdict).model_validate_json(verdict.model_dump_json()).meaning() == verdict.meaning()
    silent = judge(history(x=[2.0]), [own.model_copy(update={"meaning": ""})])
    assert silent is not None and silent.meaning() == "a rule of this experiment's own fired"
    known = judge(history(x=[2.0]), [own.model_copy(update={"verdict": "reward_plateau"})])
    assert known is not None and known.meaning() == "the score has stopped rising, or cannot rise"


def test_rules_that_judge_nothing_say_why_in_words() -> None:
    def why(**fields: Any) -> str:
        rule = OutsetRule(name="r", **fields)
        return never_judged(History(), ["train/loss", "aux_loss"], [rule])["r"]

    assert why(words=("loss",), without=("loss",)) == (
        "its `without` takes out every metric that its words name: aux_loss, train/loss"
    )
    assert why(words=("fid",)) == "no metric with fid in its name was ever logged; logged were aux_loss, train/loss"
    assert why(metric="evl/*").startswith("no metric like evl/* was ever logged")
    conditions = (Condition(metric="lss", above=1), Condition(metric="ac", above=1))
    two = ThresholdRule(name="r", verdict="mine", conditions=conditions)
    assert never_judged(History(), ["loss", "acc"], [two])["r"] == (
        "metrics lss, ac were never logged; nearest: loss, acc; logged were loss, acc"
    )
