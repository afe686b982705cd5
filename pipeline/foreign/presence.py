"""In which rows of a file a metric has a number, and what a word such as `null` in its place means.

JSON has no NaN, so many writers put `null` for it; others put `null` or `None` where nothing was measured. The rows
before tell: a metric that had a number in nearly every row of this kind is NaN, one with gaps has no value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.health.names import GRADIENTS, LOSSES, SCORES, has_word

_ROWS_FIRST = 3
"""Rows with a number after which a metric is known."""
_NUMBERS_A_GAP = 9
"""So many rows with a number for each one without make a metric that has no gaps."""
_SILENT_ROWS, _SILENT_GAPS = 10, 10
"""A metric is told of that had no value in so many last rows, and so many times as long as ever before."""
_KINDS_OF_ROWS = 200
_OPTIONAL = ("val", "valid", "validation", "test", "dev", "holdout", "eval", "evaluation")


@dataclass
class _Metric:
    numbers: int = 0
    gaps: int = 0
    """Rows without a number between those with one."""
    longest: int = 0
    last: int = 0
    """The row of the last number."""
    words: list[int] = field(default_factory=lambda: [0, 0])
    """Rows with a word instead since then, and how many of them were taken for NaN."""
    word: str = ""


class Presence:
    """The metrics of one file."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}
        self._kinds: set[frozenset[str]] = set()
        self._rows = 0

    def had_numbers(self, metric: str) -> bool:
        """Whether it had a number in any row so far."""
        return metric in self._metrics and self._metrics[metric].numbers > 0

    def take(self, numbers: Collection[str], missing: Sequence[tuple[str, str]]) -> list[str]:
        """Takes note of a row, and returns which of its missing metrics are NaN.

        Args:
            numbers: the metrics that have a number, NaN included.
            missing: those with a word instead, and the word.
        """
        self._rows += 1
        there = frozenset(numbers)
        found = [name for name, word in missing if self._is_nan(name, word, there)]
        for name in there:
            metric = self._metrics.setdefault(name, _Metric())
            gap = self._rows - metric.last - 1 if metric.numbers else 0
            metric.gaps += gap
            metric.longest = max(metric.longest, gap)
            metric.numbers += 1
            metric.last, metric.words = self._rows, [0, 0]
        if len(self._kinds) < _KINDS_OF_ROWS:
            self._kinds.add(there)
        return found

    def _is_nan(self, name: str, word: str, there: frozenset[str]) -> bool:
        metric = self._metrics.setdefault(name, _Metric())
        metric.words[0] += 1
        metric.word = word
        usual = metric.numbers >= _ROWS_FIRST and metric.numbers > _NUMBERS_A_GAP * metric.gaps
        is_nan = usual and any(name in kind and there <= kind for kind in self._kinds)
        metric.words[1] += is_nan
        return is_nan

    def silent(self) -> Iterator[str]:
        """The losses, scores and gradients of training that have a word instead of a number up to the end."""
        for name, metric in self._metrics.items():
            words, taken = metric.words
            if taken or not has_word(name, (*LOSSES, *GRADIENTS, *SCORES)) or has_word(name, _OPTIONAL):
                continue
            if not metric.numbers and words >= _ROWS_FIRST:
                yield f"{name} is {metric.word} in all of {words:,} rows"
            elif metric.numbers and words >= max(_SILENT_ROWS, _SILENT_GAPS * metric.longest):
                yield f"{name} is {metric.word} in the last {words:,} rows"
