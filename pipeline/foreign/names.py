"""`trainer.names`: which of a script's metrics are what the ladder calls `score`, `progress`, `episodes` and so on.

The store keeps the script's own names. Whoever reads a run there translates, by the run's tag `ladder.names`, so that
terminal, page, rules and studies see the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pipeline.config import ExperimentConfig, NamedMetric
from pipeline.foreign.command import Filling, fill
from pipeline.foreign.row import metric_name

Point = TypeVar("Point", bound=tuple[float, ...])
_SCORES = ("score", "score_window")


class Source(NamedTuple):
    """Where the values of a name come from."""

    metric: str | None
    """The script's metric; None: the step."""
    of: float = 1.0
    """Divides it."""
    weak: bool = False
    """A metric that really has the name comes first."""


@dataclass(frozen=True)
class Names:
    """The names of one run, with their sources."""

    sources: Mapping[str, Source]

    @staticmethod
    def of(config: ExperimentConfig) -> Names:
        """The names of a configuration; a trainer of this project's own has none.

        A script has one score: where only one of `score` and `score_window` is named or logged, it is the other too.

        Raises:
            ValueError: a placeholder in `of` that cannot be filled, or that is no number; the message names the key.
        """
        if config.trainer.command is None:
            return Names({})
        sources = {name: _source(config, name, given) for name, given in config.trainer.names.items()}
        if config.trainer.metrics.kind != "mlflow":  # a file's metrics are logged by names that MLflow takes
            sources = {
                name: source._replace(metric=source.metric and metric_name(source.metric))
                for name, source in sources.items()
            }
        same = {
            name: sources.get(other, Source(other))._replace(weak=True)
            for name, other in (_SCORES, _SCORES[::-1])
            if name not in sources
        }
        return Names(sources | same)

    @staticmethod
    def read(tag: str | None) -> Names:
        """The names that a tag has; without one, none."""
        return Names({name: Source(*each) for name, each in json.loads(tag or "{}").items()})

    @property
    def tag(self) -> str | None:
        """The text of the tag; None: there is nothing to translate."""
        return json.dumps(self.sources) if self.sources else None

    def latest(self, found: Mapping[str, tuple[int, float, int]]) -> dict[str, tuple[int, float, int]]:
        """Adds the names to the newest (step, value, time) of every metric."""
        translated = dict(found)
        for name, source in self.sources.items():
            if source.weak and name in found:
                continue
            if source.metric is None:
                own = [each for metric, each in found.items() if not metric.startswith("system/")]
                if own:
                    step, _, time = max(own)
                    translated[name] = (step, step / source.of, time)
            elif source.metric in found:
                step, value, time = found[source.metric]
                translated[name] = (step, value / source.of, time)
        return translated

    def needed(self, metrics: Iterable[str]) -> list[str]:
        """The script's metrics that must be read for these names."""
        needed: dict[str, None] = {}
        for name in metrics:
            source = self.sources.get(name)
            if source is None or source.weak:
                needed[name] = None
            if source is not None and source.metric is not None:
                needed[source.metric] = None
        return list(needed)

    def aliases(self, found: Mapping[str, Sequence[Point]]) -> dict[str, str]:
        """The names that are only others for one of the metrics found, and the script's own name of each."""
        return {
            name: source.metric
            for name, source in self.sources.items()
            if source.metric is not None and source.metric != name and not (source.weak and found.get(name))
        }

    def series(self, metrics: Iterable[str], found: Mapping[str, Sequence[Point]]) -> dict[str, Sequence[Point]]:
        """The points of these names, from those of the metrics that were `needed`. Points are (step, …, value)."""
        series = {}
        for name in metrics:
            source = self.sources.get(name)
            if source is None or (source.weak and found.get(name)):
                series[name] = found.get(name, ())
            elif source.metric is None:
                by_step = {point[0]: point for points in found.values() for point in points}
                series[name] = [_with(by_step[step], step / source.of) for step in sorted(by_step)]
            else:
                series[name] = [_with(point, point[-1] / source.of) for point in found.get(source.metric, ())]
        return series

    def unmet(self, logged: Collection[str]) -> dict[str, str]:
        """Name → the script's metric for it, for those that the user gave and that are not among the logged ones."""
        return {
            name: source.metric
            for name, source in self.sources.items()
            if not source.weak and source.metric is not None and source.metric not in logged
        }


def _with(point: Point, value: float) -> Point:
    return (*point[:-1], value)  # type: ignore[return-value]


def _source(config: ExperimentConfig, name: str, given: str | NamedMetric) -> Source:
    if isinstance(given, str):
        return Source(given)
    if not isinstance(given.of, str):
        return Source(given.metric, float(given.of))
    key = f"trainer.names.{name}.of"
    try:
        (word,) = fill([given.of], Filling(config, "", ""))
        of = float(word)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not 0 < of < float("inf"):
        raise ValueError(f"{key}: must be above 0, not {word}")
    return Source(given.metric, of)
