"""The picture of a finding shows the bound, the onset and the detection."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.monitor import findings
from pipeline.health.plot import draw
from pipeline.health.rule_sets import RULE_SETS
from tests.health.test_rules import with_fault


@pytest.mark.parametrize(
    ("metric", "values"),
    [("expert_usage_excess", 0.9), ("gradient_norm", 300.0), ("gat_smoothing", 0.99), ("rollbacks", 5.0)],
)
def test_picture_marks_bound_onset_and_detection(metric: str, values: float) -> None:
    history = with_fault(metric, values)
    found = findings(history, RULE_SETS["v3"])[0]
    figure = draw(history, found.rule, found.evidence)
    axis = figure.axes[0]
    assert axis.get_ylabel() == metric
    at = {float(np.ravel(line.get_xdata())[0]) for line in axis.lines if len(np.ravel(line.get_xdata())) == 2}
    assert {float(found.evidence.onset_step or 0), float(found.evidence.detection_step or 0)} <= at
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert "bound" in labels and f"detected {found.evidence.detection_step}" in labels
    figure.canvas.draw()


def test_plateau_has_its_trend() -> None:
    flat = np.full(4000, 20.0) + np.random.default_rng(0).normal(0, 0.5, 4000)
    history = with_fault("score", flat[:3940], updates=4000, episodes=np.arange(3940) + 61)
    found = next(each for each in findings(history, RULE_SETS["v3"]) if each.rule.name.endswith("plateau"))
    labels = {text.get_text() for text in draw(history, found.rule, found.evidence).axes[0].get_legend().get_texts()}
    assert "fitted trend" in labels
