"""Rules as pure functions: when they fire, when they must not, and with what evidence."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.history import History
from pipeline.health.monitor import findings, judge, stirring, warnings
from pipeline.health.rule_sets import BANDS, RULE_SETS
from pipeline.health.rules import Condition, PlateauRule, Rule

V3, SEED = RULE_SETS["v3"], RULE_SETS["seed"]
UPDATE = 2048


def history(**series: object) -> History:
    """Metrics by update (step = update × 2048); `a__b` stands for `a/b`."""
    return History(
        {
            name.replace("__", "/"): [((index + 1) * UPDATE, float(value)) for index, value in enumerate(values)]  # type: ignore[arg-type]
            for name, values in series.items()
        }
    )


def healthy(updates: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    """What a healthy V3 run looks like, as measured: three phases, gradients rising with them, rare spikes."""
    random = np.random.default_rng(seed)
    third = updates // 3
    phase = np.repeat([0.0, 1.0, 2.0], [third, third, updates - 2 * third])
    gradient = np.array([0.6, 1.0, 1.1])[phase.astype(int)] * np.exp(random.normal(0, 0.35, updates))
    gradient[random.integers(0, updates, 2)] *= 12
    sparse = phase > 0
    return {
        "phase": phase,
        "alpha_entropy": np.where(sparse, random.uniform(0.2, 1.3, updates), 1.386),
        "alpha_entropy_ratio": np.where(sparse, random.uniform(0.15, 0.95, updates), 1.0),
        "sparse_share": sparse.astype(float),
        "expert_usage_max": random.uniform(0.25, 0.6, updates),
        "expert_usage_min": random.uniform(0.01, 0.2, updates),
        "expert_usage_excess": random.uniform(0.0, 0.5, updates),
        "gradient_norm": gradient,
        "gat_attention_variance": random.uniform(0.01, 0.6, updates),
        "gat_attention_variance_raw": random.uniform(0.01, 0.1, updates),
        "gat_smoothing": random.uniform(0.3, 0.85, updates),
        "nonfinite_batches": (random.random(updates) < 0.02).astype(float),
        "rollbacks": np.zeros(updates),
        "score": random.normal(20, 20, updates),
        "episodes": np.cumsum(random.integers(1, 4, updates)),
    }


def with_fault(metric: str, values: object, start: int = 60, updates: int = 120, **more: object) -> History:
    series = healthy(updates)
    for name, faulty in {metric: values, **more}.items():
        series[name] = series[name].copy()
        series[name][start:] = faulty
    return history(**series)


@pytest.mark.parametrize("seed", range(20))
def test_v3_is_quiet_on_healthy_runs(seed: int) -> None:
    assert judge(history(**healthy(360, seed)), V3) is None


def test_seed_cries_wolf_in_warm_up() -> None:
    """The brief's bounds, literally: softmax warm-up sits at ln 4 > 1.2 by design."""
    verdict = judge(history(**healthy()), SEED)
    assert verdict is not None and verdict.evidence[0].detection_step == UPDATE


@pytest.mark.parametrize(
    ("expected", "fault"),
    [
        ("expert_collapse", {"metric": "expert_usage_excess", "values": 0.9}),
        ("expert_collapse", {"metric": "expert_usage_min", "values": 0.0, "start": 100, "updates": 360}),
        ("gat_oversmoothing", {"metric": "gat_smoothing", "values": 0.97, "gat_attention_variance": 0.01}),
        ("gat_oversmoothing", {"metric": "gat_smoothing", "values": 0.97, "gat_attention_variance": 0.96}),
        ("gat_oversmoothing", {"metric": "gat_smoothing", "values": 0.995, "gat_attention_variance": 0.5}),
        ("gradient_explosion", {"metric": "gradient_norm", "values": 40.0}),
        ("gradient_explosion", {"metric": "gradient_norm", "values": np.where(np.arange(60) % 5 < 3, 30.0, 1.0)}),
        ("gradient_explosion", {"metric": "gradient_norm", "values": 500.0, "start": 0}),
        ("numerical_instability", {"metric": "rollbacks", "values": 4.0}),
        ("numerical_instability", {"metric": "nonfinite_batches", "values": 3.0}),
    ],
)
def test_v3_recognises(expected: str, fault: dict[str, object]) -> None:
    verdict = judge(with_fault(**fault), V3)  # type: ignore[arg-type]
    assert verdict is not None and verdict.name == expected


def test_evidence_can_be_checked_by_a_person() -> None:
    verdict = judge(with_fault("expert_usage_excess", 0.9), V3)
    assert verdict is not None
    evidence = verdict.evidence[0]
    assert evidence.rule == "load" and evidence.metric == "expert_usage_excess"
    assert evidence.onset_step == 61 * UPDATE and evidence.detection_step == 68 * UPDATE
    assert evidence.last_good_step == 60 * UPDATE
    assert evidence.values[-8:] == (0.9,) * 8 and "> 0.73" in evidence.threshold


def test_a_single_spike_is_harmless() -> None:
    series = healthy()
    series["gradient_norm"][70] = 1e6
    assert judge(history(**series), V3) is None


def test_gradient_level_follows_the_runs_own_median() -> None:
    """A healthy run whose reward has another scale: median 12, as measured."""
    series = healthy()
    series["gradient_norm"] = 12 * np.exp(np.random.default_rng(1).normal(0, 0.2, 120))
    assert judge(history(**series), V3) is None


def test_low_attention_variance_alone_is_a_new_encoder() -> None:
    assert judge(with_fault("gat_attention_variance", 0.001), V3) is None


def test_specialisation_is_no_collapse() -> None:
    assert judge(with_fault("alpha_entropy_ratio", 0.01, alpha_entropy=0.01), V3) is None


def test_indecision_warns_and_does_not_fail() -> None:
    series = healthy(360)
    series["alpha_entropy_ratio"][:] = 0.99
    assert judge(history(**series), V3) is None
    assert [evidence.rule for evidence in warnings(history(**series), V3)] == ["indecision"]


def test_first_to_fire_gives_the_verdict() -> None:
    series = healthy()
    series["rollbacks"][50:] = 9
    series["expert_usage_excess"][20:] = 0.9
    verdict = judge(history(**series), V3)
    assert verdict is not None and verdict.name == "expert_collapse"


def test_hysteresis_keeps_one_incident_together() -> None:
    rule = Rule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", above=1),), patience=2, window=3)
    on_and_off = [0, 2, 2, 0, 2, 2, 0, 0, 0, 2, 2]
    fired = rule.firings(history(x=on_and_off))
    assert [(each.onset_step, each.detection_step) for each in fired] == [
        (2 * UPDATE, 3 * UPDATE),
        (10 * UPDATE, 11 * UPDATE),
    ]


def test_grace_and_phases_are_not_judged() -> None:
    rule = Rule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", above=1),), grace=3, phases=(1,))
    assert rule.firings(history(x=[9] * 6, phase=[1, 1, 1, 0, 0, 0])) == []
    assert rule.firings(history(x=[9] * 6, phase=[0, 0, 0, 0, 1, 1]))[0].onset_step == 5 * UPDATE


def test_a_failure_that_began_in_the_grace_period_began_there() -> None:
    rule = Rule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", above=1),), grace=3)
    (always,) = rule.firings(history(x=[9] * 6))
    assert (always.onset_step, always.last_good_step, always.detection_step) == (UPDATE, None, 4 * UPDATE)
    (from_the_second,) = rule.firings(history(x=[0] + [9] * 6))
    assert (from_the_second.onset_step, from_the_second.last_good_step) == (2 * UPDATE, UPDATE)


def test_an_incident_within_the_window_is_part_of_it() -> None:
    rule = Rule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", above=1),), window=8, patience=5)
    (fired,) = rule.firings(history(x=[0, 2, 2, 2, 0, 0, 0, 2, 2]))
    assert fired.onset_step == 2 * UPDATE


@pytest.mark.parametrize("wrong", [{"conditions": [{"metric": "x"}]}, {"window": 3, "patience": 4}])
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    sound = {"name": "r", "verdict": "expert_collapse", "conditions": [{"metric": "x", "above": 1}]}
    Rule.model_validate(sound)
    with pytest.raises(ValueError, match=r"needs a bound|never be reached"):
        Rule.model_validate(sound | wrong)


def test_rule_of_a_metric_that_is_not_logged_is_silent() -> None:
    assert findings(history(loss=[1, 2, 3]), V3) == []


def test_a_poll_stirs_the_rules_that_its_values_may_concern() -> None:
    """A poll sees the latest values only; one violated value is enough to look closer, whatever the run's median."""

    def stirred(**latest: float) -> list[str]:
        return [rule.name for rule in stirring(latest, {}, V3)]

    assert stirred(expert_usage_excess=0.9, phase=0) == ["load"]
    assert stirred(expert_usage_excess=0.1, phase=0) == []
    assert stirred(gradient_norm=11) == ["gradient_jump", "gradient_outliers"]
    assert stirred(approx_kl=0, phase=1) == ["no_learning"] and stirred(approx_kl=0, phase=2) == []
    assert stirred(gat_smoothing=0.92) == []  # the attention is not known


def test_a_plateau_is_looked_for_when_a_check_falls_due() -> None:
    rule = PlateauRule(check_every=500)
    for before, now, due in ((498, 499, False), (499, 500, True), (500, 501, False), (501, 1600, True)):
        assert rule.stirs({"score": 1, "episodes": now}, {"score": 1, "episodes": before}) is due


def scores(slope: float, updates: int = 700, seed: int = 0) -> History:
    """Three episodes an update around 20, rising by `slope` over each 1000 episodes."""
    episodes = np.arange(1, updates + 1) * 3
    noise = np.random.default_rng(seed).normal(0, 22 / np.sqrt(3), updates)
    return history(score=20 + slope * episodes / 1000 + noise, episodes=episodes)


def test_plateau_fires_when_the_gain_is_certainly_small() -> None:
    fell = [PlateauRule().firings(scores(-15, seed=seed)) for seed in range(10)]
    assert sum(bool(each) for each in fell) >= 9
    evidence = fell[0][0]
    assert evidence.detection_step is not None and evidence.onset_step is not None
    assert evidence.onset_step < evidence.detection_step


def test_plateau_is_silent_while_the_score_rises() -> None:
    assert not any(PlateauRule().firings(scores(10, seed=seed)) for seed in range(20))


def test_late_plateau_is_how_a_run_converges() -> None:
    flat = scores(-15)
    for phase, expected in ((1.0, "reward_plateau"), (2.0, None)):
        for step in flat.series("score")[0]:
            flat.add("phase", int(step), phase)
        verdict = judge(flat, V3)
        assert (verdict.name if verdict else None) == expected
    assert [evidence.rule for evidence in warnings(flat, V3)] == ["late_plateau"]


def test_plateau_needs_a_full_window() -> None:
    assert not PlateauRule().firings(scores(-15, updates=320))


def test_plateau_gain_by_hand() -> None:
    rule = PlateauRule(window_episodes=10)
    episodes = np.arange(1, 13)
    measured = rule.gain(2.0 * episodes, episodes)
    assert measured is not None
    assert measured[0] == pytest.approx(20.0) and measured[1] == pytest.approx(20.0)
    assert measured[2] == pytest.approx(15.0)  # mean of 2·(3 … 12)


def test_bands_do_not_call_a_healthy_start_abnormal() -> None:
    start = {
        "alpha_entropy_ratio": 1.0,
        "sparse_share": 0.0,
        "expert_usage_excess": 0.01,
        "gradient_norm": 1.7,
        "gat_attention_variance": 0.01,
        "gat_smoothing": 0.5,
    }
    assert {band.judge(start) for band in BANDS} == {"normal"}
    assert {band.judge(start | {"sparse_share": 1.0, "phase": 1.0}) for band in BANDS} == {"normal"}
    sparse = start | {
        "sparse_share": 1.0,
        "phase": 2.0,
        "gat_smoothing": 0.97,
        "gradient_norm": 12.0,
        "expert_usage_excess": 0.8,
    }
    assert {band.judge(sparse) for band in BANDS} == {"abnormal"}
