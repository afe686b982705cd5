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
        self._named = [each.metric for each in sources.values() if each.metric is not None and not each.weak]
        self._derived = {name for name, each in sources.items() if not each.weak}
        self._same = {name: each.metric for name, each in sources.items() if each.weak}
        self._seen: dict[str, None] = {}

    def values(self, latest: Mapping[str, float]) -> list[tuple[str, str]]:
        """Name and value of each, as text. `latest`: the newest values that can be used, by all of their names."""
        own = [name for name in latest if name not in self._derived and not self._is_another(name, latest)]
        self._seen |= dict.fromkeys(filter(is_shown, own))
        named = [name for name in self._named if is_shown(name)]
        chosen = main_metrics(self._seen, named, most=_MOST)
        return [(name, number(latest[name]) if name in latest else "not finite") for name in chosen]

    def _is_another(self, name: str, latest: Mapping[str, float]) -> bool:
        """Whether a name is another one's for the same metric."""
        return name == "score_window" and self._same.get(name) in latest
