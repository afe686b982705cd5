"""Kinds of moments in a game: the hero is hurt, a monster is adjacent, new map comes into view.

A moment may be of several kinds at once. A moment of none of them is `else`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.environments.entity_graph import HIT_POINTS, KINDS
from pipeline.environments.names import SITUATIONS as SITUATIONS  # names of the columns below

LOW_HIT_POINTS = 1 / 3
"""Below this share of the maximum, hit points are low."""


def situations(observation: Mapping[str, np.ndarray], new_map: np.ndarray) -> np.ndarray:
    """The kinds of n moments, (n, 4) bool, in the order of `SITUATIONS`.

    Args:
        observation: n moments as `entity_graph.encode` returns them; `stats`, `node_kind` and `node_position` are read.
        new_map: (n,) bool, whether squares came into view for the first time.
    """
    hurt = observation["stats"][:, HIT_POINTS] < LOW_HIT_POINTS
    near = abs(observation["node_position"]).max(-1) <= 1
    beside = (near & (observation["node_kind"] == KINDS.index("monster"))).any(-1)
    return np.stack([hurt, beside, new_map, ~(hurt | beside | new_map)], axis=-1)
