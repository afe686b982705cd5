"""`health.extra` takes every kind of rule, and says in one line what is wrong with one."""

from __future__ import annotations

import pytest

from pipeline.errors import BadInput
from pipeline.experiment_file import with_overrides
from pipeline.health.kinds import KINDS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("verdict: my_own, conditions: [{metric: a, finite: false}]", "threshold"),
        ("verdict: reward_plateau, metric: eval_loss, window_episodes: 100", "plateau"),
        ("metric: score, expected_gain: 0.1, window_episodes: 3000", "flat"),
        ("metric: eval_loss", "plateau"),
        ("metric: 'loss/*', factor: 50", "explosion"),
        ("words: [score], share: 0.5", "collapse"),
        ("metric: x, never: 3", "nonfinite"),
        ("metric: x, reports: 9", "frozen"),
        ("least: 0.5", "unfinished"),
        ("words: [loss], enough: 5", "few"),
        ("metric: loss, silent_reports: 30", "ceased"),
        ("metric: x, stays: 50", "outset"),
        ("words: [score], proof: [acc]", "nogain"),
        ("words: [lr], no_gain: true", "zerorate"),
    ],
)
def test_the_fields_say_which_kind_is_meant(text: str, kind: str) -> None:
    config = with_overrides([f"health.extra=[{{name: r, {text}}}]"])
    (rule,) = config.health.extra
    assert type(rule) is KINDS[f"kind:{kind}"]
    assert config.with_values({"training.seed": 2}).health.extra == (rule,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("verdict: crash, metric: x", ["health.extra.0.verdict", "no rule can find this", "a name of your own"]),
        ("verdict: gradient_explosoin, metric: x", ["too close to gradient_explosion"]),
        ("verdict: My Verdict, metric: x", ["health.extra.0.verdict", "small letters"]),
        ("metric: x, window_episode: 3", ["health.extra.0.window_episode", "nearest: window_episodes"]),
        ("verdict: x, conditions: [{metric: a, abve: 1}]", ["conditions.0.abve", "nearest: above"]),
        ("verdict: x, conditions: [{metric: a, finite: true}]", ["conditions.0.finite"]),
        ("metric: x, words: [loss], factor: 3", ["either metric or words"]),
        ("metric: x, factor: 3, patience: 9", ["patience=9 can never be reached"]),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(text: str, expected: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        with_overrides([f"health.extra=[{{name: r, {text}}}]"])
    line = str(refused.value)
    assert all(part in line for part in expected) and "\n" not in line and "kind:" not in line, line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["health.override.nan_loss.windw=3", "trainer.command=[x]"],
            "health.override.nan_loss.windw: unknown key; nearest: window",
        ),
        (["health.override.load.patience=abc"], "health.override.load.patience: input should be a valid integer"),
        (["health.override.explosion.factor=3"], "health.override.explosion: unknown rule; allowed: rollbacks"),
        (["health.override.laod.patience=3", "trainer.command=[x]"], "health.override.laod: unknown rule"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(words: list[str], expected: str) -> None:
    with pytest.raises(BadInput) as refused:
        with_overrides(words)
    assert expected in str(refused.value) and "\n" not in str(refused.value)
