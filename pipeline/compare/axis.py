"""The vertical axis on which the values of a metric can be told apart, whatever they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SQUEEZED = 50.0
"""Largest size over that of the lower quarter, from which on most values would lie together on a linear axis."""
_FARTHEST = 1e100
"""Largest size over the smallest for which a logarithmic axis has room."""
_MARGIN = 0.07
_NEAR_ZERO = 0.35
"""Smallest over largest value, below which a linear axis begins at 0."""


@dataclass(frozen=True)
class Axis:
    """A vertical axis: the arguments of :class:`pipeline.compare.svg.Chart`."""

    low: float
    high: float
    log: bool = False
    linear: float = 0.0
    """Of a logarithmic axis that has room for 0 and negative values: up to which size it is nearly linear."""

    @property
    def word(self) -> str:
        """How the values are scaled; empty: as they are."""
        return "" if not self.log else "symlog" if self.linear else "log"


def axis_of(values: np.ndarray, squeezed: float = SQUEEZED) -> Axis:
    """The axis for finite values (n,), one at least.

    It is linear; or logarithmic if most values would lie together; then symlog if not all of them are positive.
    """
    sizes = np.abs(values[values != 0])
    typical = float(np.quantile(sizes, 0.25, method="lower")) if len(sizes) else 0.0
    low, high = float(values.min()), float(values.max())
    if typical > 0 and sizes.max() / squeezed > typical:
        smallest = float(sizes.max()) / _FARTHEST
        if low > 0:
            low = max(low, smallest)
            powers = math.log10(high / low)
            return Axis(low * 10 ** (-powers * _MARGIN / 2), high * 10 ** (powers * _MARGIN), log=True)
        linear = max(typical, smallest)
        return Axis(min(0.0, 2 * low), max(0.0, 2 * high), log=True, linear=linear)
    if low == high:
        room = abs(low) / 2 or 1.0
        return Axis(low - room, high + room)
    room = _MARGIN * (high - low)
    bottom = 0.0 if 0 <= low < _NEAR_ZERO * high else low - room
    top = 0.0 if 0 >= high > _NEAR_ZERO * low else high + room
    return Axis(bottom, top)
