"""Which places in a queue would have been held in a recorded run."""

from __future__ import annotations

import pytest

from benchmarks.speculation import places
from pipeline.health.history import History
from pipeline.health.threshold import Condition, ThresholdRule

RULE = ThresholdRule(
    name="high", verdict="gradient_explosion", conditions=(Condition(metric="x", above=1.0),), window=8, patience=4
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("........................", []),
        ("..#.....................", []),
        ("..##....................", [(3, 6)]),
        ("..######................", [(3, None)]),
        ("..##..........####......", [(3, 6), (15, None)]),
    ],
    ids=["calm", "too short", "in vain", "before a verdict", "both"],
)
def test_places(values: str, expected: list[tuple[int, int | None]]) -> None:
    steps = range(10, 10 * len(values) + 10, 10)
    points = [(step, 2.0 if value == "#" else 0.0) for step, value in zip(steps, values, strict=True)]
    history = History({"x": points, "update": [(step, float(step)) for step in steps]})
    assert places(history, (RULE,)) == expected
