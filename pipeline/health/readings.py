"""Numbers that a trainer logs under names that this program knows: which of them are used, and how they are written.

A metric is data of a program that this one does not know. A value that is not finite, or that its name does not allow,
is told once and used nowhere: not for a line, a table, a page or a sum. A companion that is missing, such as the bounds
of a baseline, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.health.history import is_finite
from pipeline.health.phase import Phase

_COUNT = (0.0, 1e15)
_ROUNDING = 1e-6
RANGES: dict[str, tuple[float, float]] = {
    "episodes": _COUNT,
    "update": _COUNT,
    "progress": (0.0, 1.0 + _ROUNDING),
    "phase": (min(Phase), max(Phase)),
    "steps_per_second": _COUNT,
    "memory_mb": _COUNT,
    "cost/seconds": _COUNT,
}
"""The values that each of the names allows whose numbers are counted with."""
_LONG = 1e7


def doubt(name: str, value: float) -> str | None:
    """Why a value is not used; None: it is."""
    if not is_finite(value):
        return "only finite values are shown"
    if name == "phase":
        return None if Phase.logged(value) is not None else f"allowed are {', '.join(map(str, map(int, Phase)))}"
    low, high = RANGES.get(name, (value, value))
    return None if low <= value <= high else f"allowed is {low:g} – {high:g}, so it is not used"


def used(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics whose values are used."""
    return {name: value for name, value in metrics.items() if doubt(name, value) is None}


def written(value: float) -> str:
    """A number with one decimal; a huge one in few characters."""
    return f"{value:.1f}" if abs(value) < _LONG else f"{value:.3g}"


def interval(metrics: Mapping[str, float], name: str) -> str | None:
    """A metric with the bounds that are logged beside it, as `8.0 [7.0, 9.0]`; None where it was not logged."""
    if name not in metrics:
        return None
    bounds = [metrics.get(f"{name}_low"), metrics.get(f"{name}_high")]
    said = [written(bound) for bound in bounds if bound is not None]
    return written(metrics[name]) + (f" [{', '.join(said)}]" if len(said) == len(bounds) else "")
