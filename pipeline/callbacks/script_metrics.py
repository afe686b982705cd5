"""The main metrics of a script, as the terminal shows them while it trains."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.compare.selection import is_shown, main_metrics
from pipeline.compare.svg import number
from pipeline.config import ExperimentConfig
from pipeline.foreign.names import Names

_MOST = 6
"""Metrics for which a panel or a line has room."""


class ScriptMetrics:
    """Which metrics are shown of one attempt. One whose newest value is not finite keeps its place."""

    def __init__(self, config: ExperimentConfig) -> None:
        sources = Names.of(config).sources
        named = {name: each.metric for name, each in sources.items() if each.metric is not None and not each.weak}
        self._named = [metric for metric in named.values() if is_shown(metric)]
        self._told = {"score", "score_window", named.get("score"), named.get("score_window")}  # as the score
        self._derived = {name for name, each in sources.items() if not each.weak}
        self._seen: dict[str, None] = {}

    def values(self, latest: Mapping[str, float]) -> list[tuple[str, str]]:
        """Name and value of each, as text. `latest`: the newest values that can be used, by all of their names."""
        own = [name for name in latest if name not in self._derived]
        self._seen |= dict.fromkeys(filter(is_shown, own))
        chosen = [name for name in main_metrics(self._seen, self._named, most=_MOST + 1) if name not in self._told]
        return [(name, number(latest[name]) if name in latest else "not finite") for name in chosen[:_MOST]]
