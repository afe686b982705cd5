"""A script that plays without learning: it only follows the paths of `pipeline.environments.paths`.

It is a baseline for policies that are told the same paths. It fetches what lies about, then takes the stairs down if
it knows where they are, and explores otherwise. It does not fight or eat.
"""

from __future__ import annotations

import numpy as np

from pipeline.config import EnvironmentSection
from pipeline.environments.actions import STEP_OF_KEY
from pipeline.environments.level import IS_STAIRS_DOWN
from pipeline.environments.nethack import Episode, NetHackGame

AT_RANDOM = 0.2
"""Share of the steps in which it searches or steps at random, since what it follows may lead nowhere."""
_KEY_OF_STEP = {step: ord(key) for key, step in STEP_OF_KEY.items()}


def scripted_episodes(config: EnvironmentSection, episodes: int, seed: int) -> list[Episode]:
    """The script's episodes of one sequence of games."""
    game = NetHackGame(config, seed)
    random = np.random.default_rng(seed)
    actions = {int(key): index for index, key in enumerate(game.get_wrapper_attr("actions"))}
    played: list[Episode] = []
    observation, _ = game.reset()
    while len(played) < episodes:
        observation, _, terminated, truncated, _ = game.step(actions[_key(observation, random)])
        if terminated or truncated:
            assert game.last_episode is not None
            played.append(game.last_episode)
            observation, _ = game.reset()
    game.close()
    return played


def _key(observation: dict[str, np.ndarray], random: np.random.Generator) -> int:
    frontier, thing, stairs = (tuple(each) for each in observation["paths"].tolist())
    follows = random.random() >= AT_RANDOM
    if follows and IS_STAIRS_DOWN[observation["underfoot"]] and not any(thing):
        return ord(">")
    step = next((each for each in (thing, stairs, frontier) if any(each)), None)
    if follows and step:
        return _KEY_OF_STEP[step]
    return ord("s") if random.random() < 0.5 else int(random.choice(list(_KEY_OF_STEP.values())))
