"""When a condition that holds again and again is an incident."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Incident(NamedTuple):
    """Where a rule fires, as indices of the history."""

    onset: int
    """The first value at which the condition held."""
    start: int
    """The first value of the window."""
    end: int
    """The value at which the rule fires, the last of the window."""


def incidents(hit: np.ndarray, window: int, patience: int, clear: int = 3, grace: int = 0) -> list[Incident]:
    """The incidents in which a condition holds `patience` times among the last `window` values, oldest first.

    Args:
        hit: (n,) whether the condition holds.
        window: values.
        patience: values of the window.
        clear: hysteresis: so many values in a row at which the condition does not hold end an incident.
        grace: values at the start that are not judged, although an incident may begin in them.
    """
    found: list[Incident] = []
    onset: int | None = None
    good, fired = 0, False
    for index in range(len(hit)):
        if not hit[index]:
            good += 1
            if good >= clear:
                onset, fired = None, False
            continue
        good = 0
        onset = index if onset is None else onset
        start = max(0, index - window + 1)
        judged = max(start, grace)
        if not fired and hit[judged : index + 1].sum() >= patience:
            fired = True
            # An earlier incident that has ended, but lies in this window, belongs to this one.
            first = min(onset, start + int(np.argmax(hit[start : index + 1])))
            found.append(Incident(first, start, index))
    return found


def last_of(hit: np.ndarray, incident: Incident, clear: int) -> int:
    """The last value of an incident at which the condition holds; the arguments are those of `incidents`."""
    last = incident.end
    for index in range(incident.end, len(hit)):
        if hit[index]:
            last = index
        elif index - last >= clear:
            break
    return last
