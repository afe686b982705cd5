"""How many steps one attempt has trained, from the steps of its metrics."""

from __future__ import annotations

import itertools
from collections.abc import Iterable


def trained_steps(steps: Iterable[int], *, scratch: bool = False) -> int:
    """Steps of one attempt alone. A warm start goes on counting at its checkpoint, so the spacing of reports tells.

    `scratch`: it began at 0, so that a single report tells it too; else it needs two.
    """
    taken = sorted({int(step) for step in steps})
    if len(taken) < 2:
        return max(0, taken[0]) if taken and scratch else 0
    return taken[-1] - taken[0] + min(after - before for before, after in itertools.pairwise(taken))
