"""The script that only follows the paths."""

from __future__ import annotations

import numpy as np

from benchmarks.scripted import scripted_episodes
from pipeline.environments.vector import random_episodes
from tests.conftest import small_config


def test_a_script_that_follows_the_paths_goes_deeper_than_random_play() -> None:
    config = small_config(environment__max_episode_steps=600).environment
    played = scripted_episodes(config, 8, seed=4)
    assert len(played) == 8
    assert (
        np.mean([each.depth for each in played]) > np.mean([each.depth for each in random_episodes(config, 8, 4)]) + 0.5
    )
    assert [each.score for each in scripted_episodes(config, 2, seed=4)] == [each.score for each in played[:2]]
