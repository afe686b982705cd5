"""Rules that judge every metric of some names, each by itself."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np
from pydantic import model_validator

from pipeline.health.history import History
from pipeline.health.names import has_word, is_of_training
from pipeline.health.names import words as words_of
from pipeline.health.rule import ANY, Curves, Rule
from pipeline.health.verdict import Evidence

_MOST = 50
"""Metrics that one rule judges: of a gradient norm for each layer, those with the shortest names."""


class OfEach(Rule):
    """A condition on one metric, for every metric that is meant.

    Which ones is known when a run has logged them. A subclass judges the values of one of them.
    """

    metric: str | None = None
    """A name, or a pattern such as `eval/*`."""
    words: tuple[str, ...] = ()
    """Instead: metrics with one of these words in their names (`*loss` is a pattern of a word)."""
    without: tuple[str, ...] = ()
    """Of those, the metrics without any of these words."""

    @model_validator(mode="after")
    def _means_something(self) -> OfEach:
        if (self.metric is None) == (not self.words):
            raise ValueError(f"the rule {self.name} needs either metric or words, to say which metrics it judges")
        return self

    @abstractmethod
    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        """Every incident of one metric. `steps` (n,), `values` (n,): its history, in the phases that are judged."""

    def find_at_exit(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        """What is found beside that in the metric of a training that has ended."""
        return []

    def may_hold(self, metric: str, value: float) -> bool:
        """Whether the rule may fire at this newest value."""
        return True

    @property
    def _is_exact(self) -> bool:
        return self.metric is not None and not re.search(r"[*?\[]", self.metric)

    @property
    def watched(self) -> tuple[str, ...]:
        return (self.metric,) if self.metric is not None and self._is_exact else ()

    def among(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of the names that are meant."""
        if self.metric is not None:
            return tuple(name for name in names if name == self.metric or fnmatchcase(name, self.metric))
        meant = [
            name
            for name in names
            if is_of_training(name) and has_word(name, self.words) and not has_word(name, self.without)
        ]
        return tuple(sorted(meant, key=lambda name: (len(words_of(name)), name))[:_MOST])

    def meant(self, history: History) -> tuple[str, ...]:
        """Those of a history's metrics that are meant; a metric that has several names there once."""
        found = self.among(history.metrics)
        return found if self._is_exact else history.distinct(found)

    def reads(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.metrics, *self.among(names))))

    def absent(self, names: Collection[str]) -> tuple[str, ...]:
        of_these = () if self.among(names) or self._is_exact else (self.subject,)
        return (*of_these, *super().absent(names))

    def taken_out(self, names: Collection[str]) -> tuple[str, ...]:
        if self.metric is not None or self.among(names):
            return ()
        return tuple(name for name in names if is_of_training(name) and has_word(name, self.words))

    @property
    def subject(self) -> str:
        """The metrics that are meant, in words."""
        if self.metric is not None:
            return self.metric if self._is_exact else f"{ANY}metric like {self.metric}"
        named = [word for word in self.words if "*" not in word]
        return f"{ANY}metric with {', '.join(named[:3])}{' …' if len(named) > 3 else ''} in its name"

    @property
    def shown(self) -> str:
        """The same for the page."""
        return f"`{self.metric}`" if self.metric is not None else self.subject

    def judged(self, history: History, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (n,) and values (n,) of a metric, in the phases that are judged."""
        if self.phases is None:
            return history.series(metric)
        steps, columns = history.aligned((metric, "phase"), (metric,))
        inside = np.isin(columns["phase"], self.phases)
        return steps[inside], columns[metric][inside]

    def firings(self, history: History) -> list[Evidence]:
        found = [
            evidence for metric in self.meant(history) for evidence in self.find(metric, *self.judged(history, metric))
        ]
        return sorted(found, key=lambda evidence: evidence.detection_step or 0)

    def at_exit(self, history: History) -> list[Evidence]:
        return [
            evidence
            for metric in self.meant(history)
            for evidence in self.find_at_exit(metric, *self.judged(history, metric))
        ]

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        if self.phases is not None and latest.get("phase") not in self.phases:
            return False
        return any(self.may_hold(metric, latest[metric]) for metric in self.among(latest))

    def curves(self, history: History, evidence: Evidence) -> tuple[Curves, ...]:
        assert evidence.metric is not None
        return (Curves(evidence.metric, *history.series(evidence.metric)),)


class AtTheEnd(OfEach):
    """A rule that judges trainings that have ended, and all of its metrics together: a subclass has `at_exit`."""

    def find(self, metric: str, steps: np.ndarray, values: np.ndarray) -> list[Evidence]:
        return []

    def firings(self, history: History) -> list[Evidence]:
        return []

    def stirs(self, latest: Mapping[str, float], before: Mapping[str, float]) -> bool:
        return False

    @abstractmethod
    def at_exit(self, history: History) -> list[Evidence]: ...
