"""What kind of moment it is, on real NetHack."""

from __future__ import annotations

import numpy as np
from nle import nethack

from pipeline.environments.entity_graph import HIT_POINTS, KINDS, encode
from pipeline.environments.level import STONE
from pipeline.environments.situations import SITUATIONS, situations
from pipeline.environments.vector import Games, game_seeds
from tests.conftest import small_config

CONFIG = small_config(
    environment__num_envs=8, environment__max_episode_steps=400, environment__character="tou-hum-neu-mal"
).environment


def test_situations_are_those_of_the_raw_screen() -> None:
    """Compared over 4,000 moments of real games with hit points, neighbours and new squares on the screen."""
    games = Games(CONFIG, game_seeds(CONFIG, 3))
    random = np.random.default_rng(3)
    observation = games.reset()
    seen: list[dict[tuple[int, int], np.ndarray]] = [{} for _ in range(8)]
    counted = np.zeros(4, dtype=int)
    for _ in range(500):
        found = situations(encode(observation, CONFIG), games.new_map())
        for index in range(8):
            glyphs, blstats = observation["glyphs"][index], observation["blstats"][index]
            x, y = blstats[nethack.NLE_BL_X], blstats[nethack.NLE_BL_Y]
            around = glyphs[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            monsters = sum(nethack.glyph_is_normal_monster(int(glyph)) for glyph in around.ravel())
            hero = nethack.glyph_is_normal_monster(int(glyphs[y, x]))
            level = int(blstats[nethack.NLE_BL_DNUM]), int(blstats[nethack.NLE_BL_DLEVEL])
            before = seen[index].setdefault(level, np.zeros(glyphs.shape, dtype=bool))
            expected = {
                "low_hit_points": 3 * blstats[nethack.NLE_BL_HP] < blstats[nethack.NLE_BL_HPMAX],
                "monster_adjacent": monsters > hero,
                "new_map": bool(((glyphs != STONE) & ~before).any()),
            }
            before |= glyphs != STONE
            expected["else"] = not any(expected.values())
            assert [bool(expected[name]) for name in SITUATIONS] == found[index].tolist()
        counted += found.sum(0)
        step = games.step(random.integers(0, games.num_actions, size=8))
        observation = step.observation
        for index in np.flatnonzero(step.terminated | step.truncated):
            seen[index] = {}
    games.close()
    assert counted.min() > 0, dict(zip(SITUATIONS, counted, strict=True))


def test_several_at_once_and_none() -> None:
    observation = {
        "stats": np.ones((3, 33), dtype=np.float32),
        "node_kind": np.zeros((3, 4), dtype=np.uint8),
        "node_position": np.zeros((3, 4, 2), dtype=np.float32),
    }
    observation["node_kind"][:, 0] = KINDS.index("hero")
    observation["stats"][0, HIT_POINTS] = 0.3
    observation["node_kind"][:2, 1] = KINDS.index("monster"), KINDS.index("pet")
    observation["node_position"][:, 1] = 1
    met = situations(observation, np.array([True, False, False]))
    assert met.tolist() == [[True, True, True, False], [False, False, False, True], [False, False, False, True]]
