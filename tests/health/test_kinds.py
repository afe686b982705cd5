"""Each kind of rule passes what every kind must; so does a third one, which is only what stands in this file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from rich.console import Console

from pipeline.commands.diagnose import Case, report
from pipeline.config import HealthSection
from pipeline.health import rule_sets
from pipeline.health.history import History
from pipeline.health.page import render
from pipeline.health.plateau import PlateauRule
from pipeline.health.rule import Curves, Rule
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Evidence
from tests.health.conformance import RuleConformance, latest, until
from tests.health.test_rules import UPDATE, healthy, history, with_fault


class TestThreshold(RuleConformance):
    rule = ThresholdRule(
        name="r",
        verdict="expert_collapse",
        conditions=(Condition(metric="x", above=1), Condition(metric="y", outside=(0, 1))),
        window=3,
        patience=2,
        grace=1,
    )
    fires = history(x=[0, 2, 2, 0, 2, 2, 0, 0, 0, 2, 2], y=[-1] * 11)
    quiet = history(x=[0, 2, 0, 0, 2, 2, 0, 0, 0, 0, 2], y=[-1] * 4 + [0] * 7)


class TestThresholdThatFollowsTheRun(RuleConformance):
    rule = ThresholdRule(
        name="r",
        verdict="gradient_explosion",
        conditions=(Condition(metric="x", above=1, above_median=5, above_mad=3),),
        phases=(1,),
        window=2,
        patience=2,
        grace=4,
    )
    fires = history(x=[1, 1.5, 1, 1.5, 1, 1.5, 9, 1, 1, 1, 9, 9, 9, 1, 1, 1, 9, 9], phase=[1] * 18)
    quiet = history(x=[9] * 18, phase=[1] * 18)


class TestPlateau(RuleConformance):
    rule = PlateauRule(window_episodes=40, check_every=10, patience=2)
    fires = history(score=np.r_[np.full(30, 7.0), np.arange(30), np.full(30, 30.0)], episodes=np.arange(1, 91) * 2)
    quiet = history(score=np.arange(90), episodes=np.arange(1, 91) * 2)


class TestPlateauOfAPhase(RuleConformance):
    rule = PlateauRule(window_episodes=30, check_every=7, patience=3, phases=(0, 1))
    fires = history(score=np.zeros(60), episodes=np.arange(1, 61) * 2, phase=[0] * 30 + [1] * 15 + [2] * 15)
    quiet = history(score=np.zeros(60), episodes=np.arange(1, 61) * 2, phase=[2] * 60)


class Jump(Rule):
    """A metric rises by more than `by` from one update to the next."""

    metric: str
    by: float

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric,)

    def condition(self) -> str:
        return f"`{self.metric}` rises by more than {self.by:g}"

    def persistence(self) -> str:
        return "from one update to the next"

    def firings(self, history: History) -> list[Evidence]:
        steps, values = history.aligned(self.metrics)
        rises = np.diff(values[self.metric])
        return [
            Evidence(
                rule=self.name,
                metric=self.metric,
                values=(float(rises[index]),),
                threshold=f"> {self.by:g}",
                onset_step=int(steps[index + 1]),
                last_good_step=int(steps[index]),
                detection_step=int(steps[index + 1]),
            )
            for index in np.flatnonzero(rises > self.by)
            if self.phases is None or values["phase"][index + 1] in self.phases
        ]

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        return super().stirs(latest, before) and (self.phases is None or latest["phase"] in self.phases)

    def explain(self, history: History) -> str:
        return f"rises by at most {np.diff(history.series(self.metric)[1]).max():.3g}"

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        return (Curves(self.metric, *history.series(self.metric)),)


class TestJump(RuleConformance):
    rule = Jump(name="jump", verdict="numerical_instability", metric="x", by=2)
    fires = history(x=[0, 1, 2, 5, 6, 9])
    quiet = history(x=[0, 1, 2, 3, 4, 1])


def test_a_third_kind_is_known_everywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its entry in a rule set is enough for the page, the configuration and `ladder diagnose`."""
    monkeypatch.setitem(rule_sets.RULE_SETS, "v3", (TestJump.rule, *RULE_SETS["v3"]))
    row = "| jump | `numerical_instability` | `x` rises by more than 2 | from one update to the next | fail |"
    assert row in render()
    rules = HealthSection(override={"jump": {"by": 4}}).build()
    console = Console(width=200)
    verdict = report(Case("run", "run", history(x=[0, 1, 2, 6, 6]), rules), console)
    assert verdict is None and "rises by at most 4" in capsys.readouterr().out
    verdict = report(Case("run", "run", history(x=[0, 1, 2, 7, 7]), rules), console)
    assert verdict is not None and verdict.evidence[0].detection_step == 4 * UPDATE


FAULTS = [
    {"metric": "expert_usage_excess", "values": 0.9, "expert_usage_max": 0.9},
    {"metric": "gat_smoothing", "values": 0.97, "gat_attention_variance": 0.01},
    {"metric": "gradient_norm", "values": 500.0, "approx_kl": 0.6},
    {"metric": "approx_kl", "values": 0.0},
    {"metric": "reward_std", "values": 0.0},
    {"metric": "entropy", "values": 0.1},
    {"metric": "rollbacks", "values": 4.0, "nonfinite_batches": 3.0},
    {"metric": "expert_usage_min", "values": 0.0},
    {"metric": "alpha_entropy_ratio", "values": 0.99, "updates": 240},
    {"metric": "score", "values": 0.0, "start": 0, "episodes": np.arange(1, 121) * 50.0},
]


@pytest.mark.parametrize("rules", ["v3", "seed"])
def test_every_shipped_rule_stirs_where_it_fires(rules: str) -> None:
    fired = set()
    for run in [with_fault(**fault) for fault in FAULTS] + [history(**healthy())]:  # type: ignore[arg-type]
        steps = run.series("phase")[0]
        for rule in RULE_SETS[rules]:
            for evidence in rule.firings(run):
                at = int(np.searchsorted(steps, evidence.detection_step))
                before = latest(until(run, int(steps[at - 1]))) if at else {}
                assert rule.stirs(latest(until(run, int(steps[at]))), before), rule.name
                fired.add(rule.name)
    assert fired == {rule.name for rule in RULE_SETS[rules]}


@pytest.mark.parametrize("rules", RULE_SETS)
def test_every_shipped_rule_has_words_and_a_name_of_its_own(rules: str) -> None:
    shipped = RULE_SETS[rules]
    assert len({rule.name for rule in shipped}) == len(shipped)
    for rule in shipped:
        assert rule.meaning and all(rule.describe())


def test_threshold_rules_are_stored_as_ever() -> None:
    """`health.extra` is a parameter of each run, as text: the order of the fields belongs to it."""
    rule = ThresholdRule(name="r", verdict="expert_collapse", conditions=(Condition(metric="x", above=1),), phases=(2,))
    assert rule.model_dump_json() == (
        '{"name":"r","verdict":"expert_collapse","conditions":[{"metric":"x","above":1.0,"below":null,"outside":null,'
        '"above_median":null,"above_mad":null}],"phases":[2],"grace":0,"window":1,"patience":1,"clear":3,'
        '"action":"fail","meaning":""}'
    )
    assert list(rule.model_dump(exclude_defaults=True)) == ["name", "verdict", "conditions", "phases"]
