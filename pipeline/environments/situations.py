"""What kind of moment it is for the hero: is he hurt, is a monster beside him, does he see new map?

A moment may be several of these at once. One that is none of them is `else`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.environments.entity_graph import HIT_POINTS, KINDS
from pipeline.environments.names import SITUATIONS as SITUATIONS

LOW_HIT_POINTS = 1 / 3
"""Below this share of the maximum, hit points are low."""


def situations(observation: Mapping[str, np.ndarray], new_map: np.ndarray) -> np.ndarray:
    """(n, 4) bool, in the order of `SITUATIONS`.

    Args:
        observation: as `entity_graph.encode` gives it, n moments: `stats`, `node_kind` and `node_position` are read.
        new_map: (n,) bool, whether squares came into view that had never been seen before.
    """
    hurt = observation["stats"][:, HIT_POINTS] < LOW_HIT_POINTS
    near = abs(observation["node_position"]).max(-1) <= 1
    beside = (near & (observation["node_kind"] == KINDS.index("monster"))).any(-1)
    return np.stack([hurt, beside, new_map, ~(hurt | beside | new_map)], axis=-1)
