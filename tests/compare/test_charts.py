"""The charts, from the frames of a real store."""

from __future__ import annotations

import dataclasses

from pipeline.compare.charts import score_curves
from pipeline.compare.frames import Comparison
from pipeline.compare.from_store import read
from pipeline.tracking.store import Store


def test_first_episodes_do_not_set_the_axis_of_the_scores(
    nights: tuple[Store, dict[str, tuple[str, list[str]]]],
) -> None:
    """Two episodes end in each update, so that the fourth still has eight of them and the fifth has ten."""
    store, made = nights
    night = read(store, [made["other"][0]])

    def drawn(of: Comparison) -> str | None:
        return score_curves(of, of.attempts, {"v3": 0}, "step")

    def with_score(update: int, value: float) -> Comparison:
        metrics = night.metrics.copy()
        metrics.loc[(metrics.metric == "score_window") & (metrics.step == 64 * update), "value"] = value
        return dataclasses.replace(night, metrics=metrics)

    assert drawn(with_score(4, 1000.0)) == drawn(night) != drawn(with_score(5, 1000.0))
