"""Rules as pure functions: when they fire, when they must not, and with what evidence."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.history import History
from pipeline.health.monitor import findings, judge, stirring, warnings
from pipeline.health.page import render
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import BANDS, NAN, RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule

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
        "approx_kl": 10 ** random.uniform(-5, -1.45, updates),
        "entropy": random.uniform(1.5, 3.1, updates),
        "reward_std": random.uniform(0.002, 0.6, updates),
        "nonfinite_batches": (random.random(updates) < 0.02).astype(float),
        "rollbacks": np.zeros(updates),
        "score": random.normal(20, 20, updates) * np.linspace(0.5, 2.0, updates),
        "episodes": np.cumsum(random.integers(1, 4, updates)),
        "random/score": np.full(updates, 8.5),
        "random/score_low": np.full(updates, 7.0),
        "random/score_high": np.full(updates, 10.0),
    }


def with_fault(metric: str, values: object, start: int = 60, updates: int = 120, **more: object) -> History:
    series = healthy(updates)
    for name, faulty in {metric: values, **more}.items():
        series[name] = series[name].copy()
        series[name][start:] = faulty
    return history(**series)


@pytest.mark.parametrize("seed", range(20))
def test_v3_is_quiet_on_healthy_runs(seed: int) -> None:
    whole = healthy(2000, seed)
    assert {metric for rule in V3 for metric in rule.metrics} <= whole.keys()  # every rule has what it looks at
    assert whole["episodes"][-1] > 3000
    assert judge(history(**whole), V3) is None


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
        ("gradient_explosion", {"metric": "gradient_norm", "values": np.eye(60)[9] * 200 + 1, "approx_kl": 0.6}),
        ("reward_plateau", {"metric": "reward_std", "values": 0.0}),
        ("reward_plateau", {"metric": "approx_kl", "values": 0.0}),
        ("reward_plateau", {"metric": "entropy", "values": 0.1}),
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


@pytest.mark.parametrize(("kl", "harmless"), [(0.04, True), (0.49, True), (0.51, False)])
def test_a_single_spike_is_harmless_unless_it_has_changed_the_policy(kl: float, harmless: bool) -> None:
    series = healthy()
    series["gradient_norm"][70], series["approx_kl"][70] = 1e6, kl
    verdict = judge(history(**series), V3)
    assert (verdict is None) is harmless
    assert harmless or (verdict and verdict.evidence[0].rule) == "gradient_damage"


THE_BRIEF = {
    "alpha_entropy_low": ("alpha_entropy", 0.3, -1),
    "alpha_entropy_high": ("alpha_entropy", 1.2, +1),
    "expert_usage": ("expert_usage_max", 0.8, +1),
    "gradient_norm": ("gradient_norm", 10.0, +1),
    "gat_attention_variance": ("gat_attention_variance_raw", 0.05, -1),
}
"""The brief's abnormal values: metric, bound, and the side on which it is abnormal."""


def test_seed_is_the_brief_to_the_letter() -> None:
    bounds = {rule.name for rule in SEED if isinstance(rule, ThresholdRule) and rule not in NAN}
    assert bounds == THE_BRIEF.keys()
    for name, (metric, bound, side) in THE_BRIEF.items():
        at, beyond = (
            [each.rule.name for each in findings(history(**{metric: [bound + side * by]}), SEED)] for by in (0, 1e-6)
        )
        assert (at, beyond) == ([], [name])


@pytest.mark.parametrize("rules", [V3, SEED], ids=["v3", "seed"])
@pytest.mark.parametrize(
    ("series", "rule"),
    [({"nonfinite_batches": [1.0] * 30}, "nonfinite_batches"), ({"rollbacks": [0.0, 2.0, 4.0]}, "rollbacks")],
)
def test_nan_that_rollback_does_not_cure_is_detected(
    rules: tuple[Rule, ...], series: dict[str, list[float]], rule: str
) -> None:
    verdict = judge(history(**series), rules)
    assert verdict is not None and verdict.name == "numerical_instability" and verdict.evidence[0].rule == rule
    once = {name: [values[0], *[0.0] * 29] for name, values in series.items()}
    assert judge(history(**once), rules) is None  # a single one is skipped, and that is the end of it


def test_what_the_brief_has_no_number_for_is_said() -> None:
    page = render().partition("`health.rules: seed`")[2]
    assert "this project's own, not the brief's" in " ".join(page.split())
    for rule in SEED:
        if rule.name not in THE_BRIEF:
            assert not rule.meaning.startswith("The brief") or "not in the brief" in rule.meaning, rule.name


LN4 = float(np.log(4))


def excess(largest: float) -> float:
    """The usage excess where one of four experts has this share."""
    return (largest - 0.25) / 0.75


FOUR = {"gat_smoothing": 1.0, "sparse_share": 1.0, "phase": 2.0}  # where every bound counts


@pytest.mark.parametrize(
    ("metric", "normal", "tolerated", "abnormal"),
    [
        # The brief's: α-entropy of four experts (ln 4 = 1.386) 0.5 – 1.0, < 0.3 or > 1.2; usage 10 – 40 %, > 80 %;
        # gradient norm < 5, > 10; attention variance > 0.1, < 0.05.
        ("alpha_entropy_ratio", (0.51 / LN4, 0.99 / LN4), (0.49 / LN4, 0.31 / LN4), 0.29 / LN4),
        ("alpha_entropy_ratio", (0.51 / LN4, 0.99 / LN4), (1.01 / LN4, 1.19 / LN4), 1.21 / LN4),
        ("expert_usage_excess", (excess(0.25), excess(0.399)), (excess(0.401), excess(0.799)), excess(0.801)),
        ("expert_usage_min", (0.101, 0.25), (0.099, 0.002), 0.0009),
        ("gradient_norm", (0.1, 4.99), (5.01, 9.99), 10.01),
        ("gat_attention_variance", (0.101, 0.9), (0.051, 0.099), 0.049),
    ],
)  # fmt: skip
def test_bands_are_the_briefs(
    metric: str, normal: tuple[float, ...], tolerated: tuple[float, ...], abnormal: float
) -> None:
    (band,) = (each for each in BANDS if each.metric == metric)

    def judged(*values: float) -> set[str]:
        return {band.judge({"expert_usage_excess": 0.74, **FOUR, metric: value}) for value in values}

    assert (judged(*normal), judged(*tolerated), judged(abnormal)) == ({"normal"}, {"between"}, {"abnormal"})


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


def above_one(**fields: object) -> ThresholdRule:
    """A rule on `x` > 1."""
    conditions = (Condition(metric="x", above=1),)
    return ThresholdRule(name="r", verdict="expert_collapse", conditions=conditions, **fields)  # type: ignore[arg-type]


def test_hysteresis_keeps_one_incident_together() -> None:
    rule = above_one(patience=2, window=3)
    on_and_off = [0, 2, 2, 0, 2, 2, 0, 0, 0, 2, 2]
    fired = rule.firings(history(x=on_and_off))
    assert [(each.onset_step, each.detection_step) for each in fired] == [
        (2 * UPDATE, 3 * UPDATE),
        (10 * UPDATE, 11 * UPDATE),
    ]


def test_grace_and_phases_are_not_judged() -> None:
    rule = above_one(grace=3, phases=(1,))
    assert rule.firings(history(x=[9] * 6, phase=[1, 1, 1, 0, 0, 0])) == []
    assert rule.firings(history(x=[9] * 6, phase=[0, 0, 0, 0, 1, 1]))[0].onset_step == 5 * UPDATE


def test_a_failure_that_began_in_the_grace_period_began_there() -> None:
    rule = above_one(grace=3)
    (always,) = rule.firings(history(x=[9] * 6))
    assert (always.onset_step, always.last_good_step, always.detection_step) == (UPDATE, None, 4 * UPDATE)
    (from_the_second,) = rule.firings(history(x=[0] + [9] * 6))
    assert (from_the_second.onset_step, from_the_second.last_good_step) == (2 * UPDATE, UPDATE)


def test_an_incident_within_the_window_is_part_of_it() -> None:
    rule = above_one(window=8, patience=5)
    (fired,) = rule.firings(history(x=[0, 2, 2, 2, 0, 0, 0, 2, 2]))
    assert fired.onset_step == 2 * UPDATE


@pytest.mark.parametrize("wrong", [{"conditions": [{"metric": "x"}]}, {"window": 3, "patience": 4}])
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    sound = {"name": "r", "verdict": "expert_collapse", "conditions": [{"metric": "x", "above": 1}]}
    ThresholdRule.model_validate(sound)
    with pytest.raises(ValueError, match=r"needs a bound|never be reached"):
        ThresholdRule.model_validate(sound | wrong)


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


def test_bands_do_not_call_a_healthy_start_abnormal() -> None:
    start = {
        "alpha_entropy_ratio": 1.0,
        "sparse_share": 0.0,
        "expert_usage_excess": 0.01,
        "expert_usage_min": 0.24,
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
        "expert_usage_min": 0.0,
    }
    assert {band.judge(sparse) for band in BANDS} == {"abnormal"}
