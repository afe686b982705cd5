"""Observations of NetHack as arrays for a policy: a crop of the map, normalised statistics, a graph of entities.

Node 0 of the graph is the hero. The nearest monsters, objects, doors, stairs and other features follow by distance, and
farther ones are dropped. Edges join each node and its nearest others, the hero and all others, and each node and
itself. Everything is computed for the whole batch at once.
"""

from __future__ import annotations

import numpy as np
from nle import nethack

from pipeline.config import EnvironmentSection
from pipeline.environments.level import STAIRS_DOWN, STAIRS_UP
from pipeline.environments.paths import GOALS

GLYPHS = nethack.MAX_GLYPH + 1  # ids 0 … MAX_GLYPH
_DIRECTIONS = np.delete(np.eye(9, dtype=np.float32), 4, axis=1)
"""(9, 8) one-hot directions of a step, by 3 · (rows + 1) + columns + 1; 0 for no step."""
PATHS = (2 + 8) * len(GOALS)
"""Number of features that the first steps of paths are."""
KINDS = ("none", "hero", "monster", "pet", "object", "remains", "door", "stairs_up", "stairs_down", "feature", "trap")
STATS = 33
_KIND = {name: index for index, name in enumerate(KINDS)}


def _kind_table() -> np.ndarray:
    """Kind of entity of each glyph, (GLYPHS,) uint8; 0: no entity (floor, wall, corridor, unknown)."""
    table = np.zeros(GLYPHS, dtype=np.uint8)
    table[nethack.GLYPH_MON_OFF : nethack.GLYPH_PET_OFF] = _KIND["monster"]
    table[nethack.GLYPH_PET_OFF : nethack.GLYPH_INVIS_OFF] = _KIND["pet"]
    table[nethack.GLYPH_INVIS_OFF : nethack.GLYPH_BODY_OFF] = _KIND["monster"]  # remembered unseen or detected
    table[nethack.GLYPH_BODY_OFF : nethack.GLYPH_RIDDEN_OFF] = _KIND["remains"]
    table[nethack.GLYPH_RIDDEN_OFF : nethack.GLYPH_OBJ_OFF] = _KIND["monster"]
    table[nethack.GLYPH_OBJ_OFF : nethack.GLYPH_CMAP_OFF] = _KIND["object"]
    table[nethack.GLYPH_WARNING_OFF : nethack.GLYPH_STATUE_OFF] = _KIND["monster"]
    table[nethack.GLYPH_STATUE_OFF : nethack.MAX_GLYPH] = _KIND["remains"]
    # Map symbols, numbered as in NetHack 3.6's defsym.h.
    for symbols, kind in (
        (range(12, 17), "door"),
        ((23, 25), "stairs_up"),
        ((24, 26), "stairs_down"),
        (range(27, 33), "feature"),  # altar, grave, throne, sink, fountain, pool
        (range(42, 65), "trap"),
    ):
        for symbol in symbols:
            table[nethack.GLYPH_CMAP_OFF + symbol] = _KIND[kind]
    return table


_KIND_OF_GLYPH = _kind_table()


def encode(observation: dict[str, np.ndarray], config: EnvironmentSection) -> dict[str, np.ndarray]:
    """The observations of n games as arrays for a policy.

    Args:
        observation: `glyphs` (n, 21, 79), `blstats` (n, 27), `underfoot` (n,), `visited` (n, 21, 79), `paths` (n, 3, 2)
            and `action_mask` (n, A). In the crop and in the graph, the hero's own square shows what the hero stands on.
        config: sizes of the crop and of the graph, and where the paths go.

    Returns:
        | Key | Shape | Description |
        |---|---|---|
        | crop | (n, crop, crop) int16 | glyph ids around the hero; MAX_GLYPH outside of the map |
        | visited | (n, crop, crop) int8 | 1: the hero has been on the square |
        | stats | (n, 33) float32 | statistics of the hero, scaled to about [−1, 1]; `paths: stats` adds 30 |
        | paths | (n, 30) float32 | with `paths: graph` alone: first steps of paths, features of the hero's node |
        | action_mask | (n, A) bool | the actions that are offered |
        | node_glyph | (n, nodes) int16 | glyph of each entity |
        | node_kind | (n, nodes) uint8 | index into KINDS; 0: no such node |
        | node_position | (n, nodes, 2) float32 | column and row relative to the hero, in squares |
        | adjacency | (n, nodes, nodes) bool | [i, j]: node i attends to node j; symmetric, with self-loops |
    """
    blstats, underfoot = observation["blstats"], observation["underfoot"]
    x, y = blstats[:, nethack.NLE_BL_X], blstats[:, nethack.NLE_BL_Y]
    glyphs = observation["glyphs"].copy()
    glyphs[np.arange(len(glyphs)), y, x] = underfoot
    stats = _stats(blstats, underfoot)
    paths = _paths(observation["paths"])
    if config.paths == "stats":
        stats = np.concatenate([stats, paths], axis=1)
    return {
        "crop": _crop(glyphs, x, y, config.crop_size, beyond=nethack.MAX_GLYPH),
        "visited": _crop(observation["visited"], x, y, config.crop_size, beyond=0),
        "stats": stats,
        "action_mask": observation["action_mask"].astype(bool),
        **({"paths": paths} if config.paths == "graph" else {}),
        **_graph(glyphs, x, y, config.max_entities, config.neighbours),
    }


def _crop(maps: np.ndarray, x: np.ndarray, y: np.ndarray, size: int, beyond: int) -> np.ndarray:
    """The part (n, size, size) of each map (n, 21, 79) around (x, y); `beyond` fills squares outside of the map."""
    half = size // 2
    n, height, width = maps.shape
    padded = np.full((n, height + 2 * half, width + 2 * half), beyond, dtype=maps.dtype)
    padded[:, half : half + height, half : half + width] = maps
    offsets = np.arange(size)
    rows = (y[:, None] + offsets)[:, :, None]
    columns = (x[:, None] + offsets)[:, None, :]
    return padded[np.arange(n)[:, None, None], rows, columns]


_LINEAR = {
    nethack.NLE_BL_X: 79,
    nethack.NLE_BL_Y: 21,
    nethack.NLE_BL_DEPTH: 10,
    nethack.NLE_BL_AC: 10,
    nethack.NLE_BL_XP: 10,
    nethack.NLE_BL_CAP: 3,
    **{index: 20 for index in range(nethack.NLE_BL_STR25, nethack.NLE_BL_CHA + 1) if index != nethack.NLE_BL_STR125},
}
_LOGARITHMIC = {
    nethack.NLE_BL_HPMAX: 5,
    nethack.NLE_BL_ENEMAX: 5,
    nethack.NLE_BL_EXP: 10,
    nethack.NLE_BL_GOLD: 10,
    nethack.NLE_BL_TIME: 10,
}
HIT_POINTS = len(_LINEAR) + len(_LOGARITHMIC)
"""Index in `stats` of the hero's hit points, as a share of their maximum."""
_LINEAR_SCALE = np.array(list(_LINEAR.values()), dtype=np.float32)
_LOGARITHMIC_SCALE = np.array(list(_LOGARITHMIC.values()), dtype=np.float32)
_CONDITIONS = np.array(
    [
        nethack.BL_MASK_BLIND,
        nethack.BL_MASK_CONF,
        nethack.BL_MASK_STUN,
        nethack.BL_MASK_HALLU,
        nethack.BL_MASK_FOODPOIS,
        nethack.BL_MASK_TERMILL,
        nethack.BL_MASK_LEV,
    ]
)


def _stats(blstats: np.ndarray, underfoot: np.ndarray) -> np.ndarray:
    b = blstats.astype(np.float32)
    parts = [
        b[:, list(_LINEAR)] / _LINEAR_SCALE,
        np.log1p(np.maximum(b[:, list(_LOGARITHMIC)], 0)) / _LOGARITHMIC_SCALE,
        b[:, [nethack.NLE_BL_HP, nethack.NLE_BL_ENE]]
        / np.maximum(b[:, [nethack.NLE_BL_HPMAX, nethack.NLE_BL_ENEMAX]], 1),
        blstats[:, [nethack.NLE_BL_HUNGER]] == np.arange(5),
        (blstats[:, [nethack.NLE_BL_CONDITION]] & _CONDITIONS) != 0,
        (underfoot[:, None, None] == np.array([STAIRS_DOWN, STAIRS_UP])).any(-1),
    ]
    return np.clip(np.concatenate(parts, axis=1, dtype=np.float32), -5, 5)


def _paths(steps: np.ndarray) -> np.ndarray:
    """First steps (n, 3, 2) as columns and rows, then as one of eight directions each, (n, 30) float32.

    An action is a direction, so from these a layer reads off the action that follows a path.
    """
    directions = _DIRECTIONS[3 * (steps[..., 1] + 1) + steps[..., 0] + 1]
    return np.concatenate([each.reshape(len(steps), -1) for each in (steps, directions)], axis=1, dtype=np.float32)


def _graph(glyphs: np.ndarray, x: np.ndarray, y: np.ndarray, nodes: int, neighbours: int) -> dict[str, np.ndarray]:
    n = len(glyphs)
    every = np.arange(n)
    kinds = _KIND_OF_GLYPH[glyphs]
    kinds[every, y, x] = 0  # the hero is node 0 already

    game, row, column = np.unravel_index(np.flatnonzero(kinds), kinds.shape)  # as np.nonzero, in half the time
    dx, dy = column - x[game], row - y[game]
    # By Chebyshev distance (a diagonal step is one step), then by Euclidean distance, then in map order.
    order = np.lexsort((dx * dx + dy * dy, np.maximum(abs(dx), abs(dy)), game))
    game, row, column, dx, dy = (array[order] for array in (game, row, column, dx, dy))
    first = np.searchsorted(game, every)
    rank = np.arange(len(game)) - first[game] + 1  # node 0 is the hero
    keep = rank < nodes
    game, row, column, dx, dy, rank = (array[keep] for array in (game, row, column, dx, dy, rank))

    node_glyph = np.full((n, nodes), nethack.MAX_GLYPH, dtype=np.int16)
    node_kind = np.zeros((n, nodes), dtype=np.uint8)
    position = np.zeros((n, nodes, 2), dtype=np.float32)
    node_glyph[:, 0] = glyphs[every, y, x]
    node_kind[:, 0] = _KIND["hero"]
    node_glyph[game, rank] = glyphs[game, row, column]
    node_kind[game, rank] = kinds[game, row, column]
    position[game, rank, 0] = dx
    position[game, rank, 1] = dy
    return {
        "node_glyph": node_glyph,
        "node_kind": node_kind,
        "node_position": position,
        "adjacency": _adjacency(position, node_kind > 0, neighbours),
    }


def _adjacency(position: np.ndarray, exists: np.ndarray, neighbours: int) -> np.ndarray:
    n, nodes, _ = position.shape
    dx, dy = (abs(axis[:, :, None] - axis[:, None, :]) for axis in np.moveaxis(position, -1, 0))
    distance = np.maximum(dx, dy) + np.float32(0.01) * np.minimum(dx, dy)
    distance[~(exists[:, :, None] & exists[:, None, :])] = np.inf
    diagonal = np.arange(nodes)
    distance[:, diagonal, diagonal] = np.inf
    k = min(neighbours, nodes - 1)
    nearest = np.argpartition(distance, k - 1, axis=-1)[:, :, :k]
    adjacency = np.zeros((n, nodes, nodes), dtype=bool)
    np.put_along_axis(adjacency, nearest, True, axis=-1)
    adjacency &= np.isfinite(distance)
    adjacency |= adjacency.transpose(0, 2, 1)
    adjacency[:, 0, :] |= exists
    adjacency[:, :, 0] |= exists
    adjacency[:, diagonal, diagonal] = True
    return adjacency
