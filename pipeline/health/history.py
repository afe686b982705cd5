"""Histories of metrics: what rules judge, be it of a live run, of a finished run or from a file."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

_LARGEST = 1e300
Point = tuple[int, float] | tuple[int, int, float]


_NOT_LOGGED = ("", "NA", "N/A", "None", "null", "<NA>")
"""Cells of tables in which nothing was logged. `nan` is a value that was logged."""


def is_finite(value: float) -> bool:
    """Returns whether a logged value is a number. MLflow's SQL stores write ±∞ as ±1.797e308."""
    return abs(value) < _LARGEST  # false for NaN


def as_meant(value: float) -> float:
    """The value without what a store has made of ±∞; every NaN is the same object, so that equal findings are equal."""
    if is_finite(value):
        return value
    return math.copysign(math.inf, value) if value == value else math.nan


class History:
    """The values of each metric by step. The value that was added last for a step wins.

    NaN and ±∞ are values. NaN counts as not logged wherever several metrics are looked at together, unless it is asked
    for. ±∞ is larger, or smaller, than any bound, and is what a store has written for it.

    Points are (step, value), or (step, time in ms, value). Without times the steps tell the order.
    """

    def __init__(
        self,
        series: Mapping[str, Iterable[Point]] | None = None,
        aliases: Mapping[str, str] | None = None,
        past: History | None = None,
        *,
        unchanged: bool = False,
    ) -> None:
        """`aliases`: names that are only others for a metric that was logged, and the name it was logged by.

        `past`: the history of the run whose checkpoint this one continues from, up to that checkpoint. `unchanged`:
        whether that run had the same configuration.
        """
        self.past, self.unchanged = past, unchanged
        self._series: dict[str, dict[int, float]] = {}
        self._times: dict[str, dict[int, int]] = {}
        self._aliases = dict(aliases or {})
        for metric, points in (series or {}).items():
            for step, *time, value in points:
                self.add(metric, int(step), value, *map(int, time))

    @classmethod
    def read_csv(cls, path: str | Path) -> History:
        """The history in a CSV file: a column `step`, and a column for each metric or the columns `metric` and `value`.

        Empty cells count as not logged.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is no such table; the message says what is missing.
        """
        import pandas as pd  # takes half a second to load, and trainers, which import this file too, read no tables

        table = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
        if "step" not in table:
            raise ValueError(f"needs a column `step`, has: {', '.join(map(str, table.columns))}")
        if {"metric", "value"} <= set(table.columns):
            points = table[["step", "metric", "value"]]
        else:
            points = table.melt(id_vars="step", var_name="metric", value_name="value")
        points = points[~points["value"].str.strip().isin(_NOT_LOGGED)]
        points = points.astype({"step": "float64", "metric": "str", "value": "float64"}).astype({"step": "int64"})
        return cls(
            {
                str(name): zip(group["step"].tolist(), group["value"].tolist(), strict=True)
                for name, group in points.groupby("metric")
            }
        )

    def add(self, metric: str, step: int, value: float, time: int | None = None) -> None:
        self._series.setdefault(metric, {})[step] = as_meant(value)
        if time is not None:
            self._times.setdefault(metric, {})[step] = time

    def __contains__(self, metric: str) -> bool:
        return metric in self._series

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that were logged."""
        return tuple(self._series)

    def distinct(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, one of each metric: the one that it was logged by, if that is among them."""
        given = tuple(names)
        own = {name: self._aliases.get(name, name) for name in given}
        chosen: dict[str, str] = {}
        for name in given:
            if own[name] not in chosen or name == own[name]:
                chosen[own[name]] = name
        return tuple(name for name in given if chosen[own[name]] == name)

    def not_finite(self) -> dict[str, int]:
        """How many values are not finite, of each metric that has such values."""
        counts = {name: sum(not is_finite(value) for value in points.values()) for name, points in self._series.items()}
        return {name: counts[name] for name in self.distinct(counts) if counts[name]}

    def series(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps (n,) ascending and values (n,); empty if there are none."""
        points = sorted(self._series.get(metric, {}).items())
        return np.array([step for step, _ in points], dtype=np.int64), np.array(
            [value for _, value in points], dtype=float
        )

    def orders(self, metrics: Iterable[str]) -> dict[str, np.ndarray]:
        """When each of the metrics was logged: places (n,) ascending in the order of all that was logged of them."""
        moments = {
            name: sorted((self._times.get(name, {}).get(step, step), step) for step in points)
            for name in metrics
            if (points := self._series.get(name))
        }
        places = {
            moment: place for place, moment in enumerate(sorted({each for all_ in moments.values() for each in all_}))
        }
        return {name: np.array([places[each] for each in found]) for name, found in moments.items()}

    def aligned(self, metrics: Iterable[str], nan_of: Collection[str] = ()) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The steps (n,) at which every one of the metrics has a value that is not NaN, and those values (n,).

        `nan_of`: metrics of which NaN is a value too.
        """
        names = list(metrics)
        if not names or any(name not in self._series for name in names):
            return np.array([], dtype=np.int64), {name: np.array([]) for name in names}
        steps = sorted(set.intersection(*(set(self._series[name]) for name in names)))
        values = {name: np.array([self._series[name][step] for step in steps], dtype=float) for name in names}
        there = np.ones(len(steps), dtype=bool)
        for name, column in values.items():
            there &= ~np.isnan(column) | (name in nan_of)
        return np.array(steps, dtype=np.int64)[there], {name: column[there] for name, column in values.items()}
