"""The table of costs: what each attempt has taken, and what it came to."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline.compare.frames import Comparison
from pipeline.compare.scores import SCORE, plain_interval
from pipeline.compare.target import COLUMNS, cost, to_score, to_target
from pipeline.compare.template import fill

_SPENT = (("time/collect", "playing", "c0"), ("time/update", "learning", "c2"), ("time/report", "logging", "c6"))


def costs(night: Comparison, attempts: pd.DataFrame, *, script: bool) -> Markup:
    """HTML of what each attempt has cost and come to; of a script, with the columns that it has logged anything for."""
    found = to_target(night, night.target).loc[attempts.run_id]
    target = to_score(found.target.iloc[0])
    columns = [
        _Column("time", [f"{each:.1f} min" for each in attempts.minutes], f"{attempts.minutes.sum():.1f} min"),
        _Column("to episode", [f"{each:,}" for each in attempts.episodes], known=bool(attempts.episodes.any())),
        _Column("to step", [f"{each:,}" for each in attempts.steps], known=script and bool(attempts.steps.any())),
        _Column("steps trained", [f"{each:,}" for each in attempts.trained_steps],
                f"{attempts.trained_steps.sum():,}", known=bool(attempts.trained_steps.any())),
        _Column("steps/s", [_known(each, ",.0f") for each in attempts.steps_per_second]),
        _Column("memory", [_known(each / 1024, ".2f", " GB") for each in attempts.memory_mb]),
        _Column("score at the end",
                [plain_interval(*each, fine=script) for each in attempts[SCORE].itertuples(index=False)]),
        _Column(target, [cost(*each) for each in found[list(COLUMNS[1:])].itertuples(index=False)],
                known=bool(found.target_reached.notna().any())),
        _Column("best score", [plain_interval(each, np.nan, np.nan, fine=True) for each in attempts.best_score],
                known=script and bool(np.isfinite(attempts.best_score).any())),
    ]  # fmt: skip
    if script:
        columns = [each for each in columns if each.known and set(each.cells) != {"–"}]
    else:
        columns = [each for each in columns if each.known and each.name not in ("to step", "best score")]
    spent = any((night.metrics.metric == name).any() for name, _, _ in _SPENT)
    shown = spent or not script
    return fill(
        "costs.html.j2",
        columns=columns,
        attempts=list(attempts.itertuples()),
        spent=[_spent(night, row) for row in attempts.itertuples()] if shown else None,
        parts=_SPENT,
    )


class _Column(NamedTuple):
    """A column of the costs."""

    name: str
    cells: list[str]
    sum: str = ""
    known: bool = True
    """Whether a script has said anything of it."""


def _known(value: float, form: str, unit: str = "") -> str:
    return f"{value:{form}}{unit}" if np.isfinite(value) else "–"


def _spent(night: Comparison, row: Any) -> list[tuple[float, str, str, float]]:
    """For what an attempt has taken its time: share in percent, name, colour and minutes of each part."""
    minutes = [night.history(row.run_id, name).value.sum() / 60 for name, _, _ in _SPENT]
    whole = max(1e-9, sum(minutes) + max(0.0, row.minutes - sum(minutes)))
    return [(100 * each / whole, name, colour, each) for each, (_, name, colour) in zip(minutes, _SPENT, strict=True)]
