"""Experiments of two configurations side by side: what differs in the configuration, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.compare.frames import Comparison
from pipeline.compare.scores import plain_interval
from pipeline.compare.statistics import FEWEST, Interval, difference, interval
from pipeline.compare.template import fill
from pipeline.compare.wording import words

NOT_OF_TRAINING = ("training.seed", "budget.", "tracking.", "notify.")
"""Beginnings of the keys in which siblings may differ."""
_NOT_SHOWN = ("training.seed", "tracking.", "notify.")


@dataclass(frozen=True)
class Fact:
    """One thing that came of both."""

    name: str
    a: str
    b: str
    change: Interval | None = None
    """B − A; None: it is no number, or not known of both."""
    how: str = ""
    """How the change is to be read."""
    fine: bool = False
    """Whether the change needs three digits."""


@dataclass(frozen=True)
class Sides:
    """Two configurations. A is that of the experiment that was named first."""

    parents: tuple[tuple[str, ...], tuple[str, ...]]
    """The experiments of A, and those of B."""
    changed: dict[str, tuple[str, str]]
    """Dotted key → its values in A and in B; by section. Seeds, store and notification are left out."""
    facts: tuple[Fact, ...]

    def as_json(self) -> dict[str, Any]:
        """For a program. A number that is not known is null."""

        def known(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "a": list(self.parents[0]),
            "b": list(self.parents[1]),
            "configuration": [{"key": key, "a": a, "b": b} for key, (a, b) in self.changed.items()],
            "facts": [
                {"name": each.name, "a": each.a, "b": each.b, "how": each.how}
                | dict(
                    zip(("change", "change_low", "change_high"), map(known, each.change or [np.nan] * 3), strict=True)
                )
                for each in self.facts
            ],
        }


def sides(night: Comparison) -> Sides | None:
    """The two configurations of the experiments; None: there are not exactly two that train different things."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    settings = {parent: one_by_one(values) for parent, values in night.settings.items()}
    for parent, values in settings.items():
        trained = ((key, value) for key, value in values.items() if not key.startswith(NOT_OF_TRAINING))
        groups.setdefault(tuple(sorted(trained)), []).append(parent)
    if len(groups) != 2:
        return None
    a, b = groups.values()
    keys = sorted({key for values in settings.values() for key in values if not key.startswith(_NOT_SHOWN)})
    changed = {key: (_values(settings, a, key), _values(settings, b, key)) for key in keys}
    return Sides(
        (tuple(a), tuple(b)), {key: pair for key, pair in changed.items() if pair[0] != pair[1]}, _facts(night, a, b)
    )


def one_by_one(values: dict[str, str]) -> dict[str, str]:
    """The parameters with those of a script, which are one mapping in JSON, each under its own key."""
    try:
        given = json.loads(values.get("trainer.parameters", "{}"))
    except ValueError:  # cut short by the store
        return values
    each = {f"trainer.parameters.{key}": str(value) for key, value in given.items()}
    return {key: value for key, value in values.items() if key != "trainer.parameters"} | each


def _values(settings: dict[str, dict[str, str]], parents: list[str], key: str) -> str:
    return " / ".join(dict.fromkeys(settings[parent].get(key, "–") for parent in parents))


def _facts(night: Comparison, a: list[str], b: list[str]) -> tuple[Fact, ...]:
    rows = night.experiments.set_index("parent")
    of_a, of_b = rows.loc[a], rows.loc[b]
    steps = night.attempts.groupby("parent").trained_steps.sum()
    fine = bool(rows.script.all())
    facts = [
        Fact("experiments", str(len(a)), str(len(b))),
        Fact("outcome", _counted(of_a.outcome.map(words)), _counted(of_b.outcome.map(words))),
        Fact("settled on", _counted(of_a.settled_rung), _counted(of_b.settled_rung)),
        _number("score", of_a, of_b, of_a.score, of_b.score, fine=fine),
        _number("attempts", of_a, of_b, of_a.attempts, of_b.attempts),
        _number("minutes", of_a, of_b, of_a.minutes, of_b.minutes),
        _number("steps trained", of_a, of_b, steps.reindex(a).fillna(0), steps.reindex(b).fillna(0)),
    ]
    return tuple(each for each in facts if {each.a, each.b} != {"–"})


def _counted(names: pd.Series) -> str:
    """Names with their number: `2 healthy, 1 exhausted`."""
    counts = names.dropna().value_counts(sort=False)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "–"


def _number(
    name: str, of_a: pd.DataFrame, of_b: pd.DataFrame, a: pd.Series, b: pd.Series, *, fine: bool = False
) -> Fact:
    """A number of each experiment, as the mean over those of one side, and the change of the mean."""
    a, b = a.astype(float).dropna(), b.astype(float).dropna()
    told_a, told_b = (plain_interval(*interval(each.to_numpy(), "mean"), fine=fine) for each in (a, b))
    if not len(a) or not len(b):
        return Fact(name, told_a, told_b)
    seeds_a = {of_a.seed[parent]: value for parent, value in a.items() if not pd.isna(of_a.seed[parent])}
    seeds_b = {of_b.seed[parent]: value for parent, value in b.items() if not pd.isna(of_b.seed[parent])}
    shared = [seed for seed in seeds_a if seed in seeds_b]
    if len(shared) >= 2:
        apart = np.array([seeds_b[seed] - seeds_a[seed] for seed in shared])
        how = f"seed by seed, {len(shared)} seeds{', too few for an interval' * (len(shared) < FEWEST)}"
        return Fact(name, told_a, told_b, interval(apart, "mean"), how, fine)
    found = difference(a.to_numpy(), b.to_numpy())
    if np.isfinite(found.low):
        return Fact(name, told_a, told_b, found, "different seeds", fine)
    how = "one seed each, so no interval" if len(a) == len(b) == 1 else "too few seeds for an interval"
    return Fact(name, told_a, told_b, found, how, fine)


def change_in_words(fact: Fact) -> str:
    """`+3.1 [1.0, 5.2] (seed by seed, 3 seeds)`; empty where there is none."""
    if fact.change is None:
        return ""
    sign = "+" if fact.change.value > 0 else ""
    return f"{sign}{plain_interval(*fact.change, fine=fact.fine)} ({fact.how})"


def section(found: Sides, names: dict[str, str]) -> Markup:
    """HTML of both. `names`: parent run → what it is called."""
    keys = [(*key.partition("."), values) for key, values in found.changed.items()]
    return fill(
        "sides.html.j2",
        who=[(letter, [names[each] for each in parents]) for letter, parents in zip("AB", found.parents, strict=True)],
        facts=[(each.name, each.a, each.b, change_in_words(each)) for each in found.facts],
        groups=[
            (group, [(name or group, *values) for _, _, name, values in of_group])
            for group, of_group in groupby(keys, itemgetter(0))
        ],
    )
