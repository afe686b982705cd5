"""Observations as arrays: crop, statistics, graph."""

from __future__ import annotations

import numpy as np
from nle import nethack

from pipeline.environments.entity_graph import KINDS, STATS, encode
from pipeline.environments.vector import Games, game_seeds
from tests.conftest import small_config

FLOOR = nethack.GLYPH_CMAP_OFF + 19
NEWT = nethack.GLYPH_MON_OFF + 322
HERO = nethack.GLYPH_MON_OFF + 327


def scene(hero: tuple[int, int], entities: dict[tuple[int, int], int]) -> dict[str, np.ndarray]:
    """An observation of a floor with a hero at (x, y) and glyphs on other squares."""
    glyphs = np.full((1, 21, 79), FLOOR, dtype=np.int16)
    blstats = np.zeros((1, 27), dtype=np.int64)
    blstats[0, 0], blstats[0, 1], blstats[0, 11] = *hero, 10
    glyphs[0, hero[1], hero[0]] = HERO
    for (x, y), glyph in entities.items():
        glyphs[0, y, x] = glyph
    visited = np.zeros((1, 21, 79), dtype=np.int8)
    return {
        "glyphs": glyphs,
        "blstats": blstats,
        "underfoot": np.array([FLOOR], dtype=np.int16),
        "visited": visited,
        "paths": np.zeros((1, 3, 2), dtype=np.int8),
        "action_mask": np.ones((1, 23), dtype=np.int8),
    }


def config(**changes: int):  # type: ignore[no-untyped-def]
    return small_config(**{f"environment__{key}": value for key, value in changes.items()}).environment


def test_crop_is_centred_on_the_hero_and_padded_beyond_the_map() -> None:
    arrays = encode(scene((0, 0), {(1, 0): NEWT}), config(crop_size=5))
    crop = arrays["crop"][0]
    assert crop[2, 2] == FLOOR and crop[2, 3] == NEWT
    assert (crop[:2] == nethack.MAX_GLYPH).all() and (crop[:, :2] == nethack.MAX_GLYPH).all()


def test_visited_squares_are_shown_around_the_hero() -> None:
    observation = scene((1, 10), {})
    observation["visited"][0, 10, :3] = 1
    crop = encode(observation, config(crop_size=5))["visited"][0]
    assert np.argwhere(crop).tolist() == [[2, 1], [2, 2], [2, 3]]  # beyond the map: not visited


def test_hero_standing_on_stairs_is_told_so() -> None:
    observation = scene((40, 10), {}) | {"underfoot": np.array([nethack.GLYPH_CMAP_OFF + 24], dtype=np.int16)}
    there, elsewhere = encode(observation, config(crop_size=5)), encode(scene((40, 10), {}), config(crop_size=5))
    assert there["crop"][0, 2, 2] == there["node_glyph"][0, 0] == nethack.GLYPH_CMAP_OFF + 24
    assert (there["stats"] - elsewhere["stats"]).tolist()[0][-2:] == [1, 0]  # down, up
    assert there["node_kind"][0].tolist() == elsewhere["node_kind"][0].tolist()  # the hero is still the hero


def test_overflow_of_entities_drops_the_farthest() -> None:
    entities = {(40 + distance, 10): NEWT for distance in range(1, 20)}
    arrays = encode(scene((40, 10), entities), config(max_entities=8))
    assert arrays["node_position"][0, 1:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (arrays["node_kind"][0] > 0).all()


def test_kinds_of_entities() -> None:
    glyphs = {
        "monster": NEWT,
        "pet": nethack.GLYPH_PET_OFF + 5,
        "object": nethack.GLYPH_OBJ_OFF + 10,
        "remains": nethack.GLYPH_BODY_OFF + 5,
        "door": nethack.GLYPH_CMAP_OFF + 15,
        "stairs_up": nethack.GLYPH_CMAP_OFF + 23,
        "stairs_down": nethack.GLYPH_CMAP_OFF + 24,
        "feature": nethack.GLYPH_CMAP_OFF + 31,
        "trap": nethack.GLYPH_CMAP_OFF + 46,
    }
    entities = {(20 + index, 5): glyph for index, glyph in enumerate(glyphs.values(), start=1)}
    arrays = encode(scene((20, 5), entities), config(max_entities=16))
    assert [KINDS[kind] for kind in arrays["node_kind"][0]][:10] == ["hero", *glyphs]
    assert (arrays["node_kind"][0, 10:] == 0).all()


def test_hero_is_linked_to_all_and_absent_nodes_to_none() -> None:
    arrays = encode(scene((40, 10), {(41, 10): NEWT, (42, 10): NEWT, (60, 3): NEWT}), config(neighbours=1))
    adjacency = arrays["adjacency"][0]
    assert adjacency[0, :4].all() and adjacency[:4, 0].all()
    assert adjacency[1, 2] and not adjacency[1, 3]
    assert (adjacency == adjacency.T).all() and adjacency.diagonal().all()
    assert not adjacency[4:, :4].any() and not adjacency[:4, 4:].any()


def test_real_observations_are_finite_and_bounded() -> None:
    settings = small_config(environment__max_episode_steps=500).environment
    games, random = Games(settings, game_seeds(settings, 1)), np.random.default_rng(1)
    observation = games.reset()
    for _ in range(100):
        arrays = encode(observation, settings)
        assert arrays["stats"].shape == (4, STATS) and (abs(arrays["stats"]) <= 5).all()
        assert (arrays["node_kind"][:, 0] == KINDS.index("hero")).all()
        observation = games.step(random.integers(0, games.num_actions, 4)).observation
