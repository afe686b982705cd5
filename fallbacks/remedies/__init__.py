"""The remedies that the brief names for each failure of the training, by verdict. One file each, all of it data.

A remedy is tried on the rung that failed, before the ladder steps down. `fallbacks/ladder.py` decides when.
"""

from __future__ import annotations

from fallbacks.remedies.calm_gradients import CALM_GRADIENTS
from fallbacks.remedies.explore_more import EXPLORE_MORE
from fallbacks.remedies.rebalance_router import REBALANCE_ROUTER
from fallbacks.remedies.remedy import Remedy
from fallbacks.remedies.shallow_gat import SHALLOW_GAT

REMEDIES: dict[str, Remedy] = {
    remedy.name: remedy for remedy in (CALM_GRADIENTS, REBALANCE_ROUTER, SHALLOW_GAT, EXPLORE_MORE)
}
"""The remedies that ship, by name. No two cure the same verdict."""


def remedy_for(verdict: str) -> Remedy | None:
    """The remedy for a verdict; None: the brief names none, or it is a rule of the experiment's own that fired."""
    return next((remedy for remedy in REMEDIES.values() if verdict in remedy.cures), None)
