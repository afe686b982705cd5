"""One game of NetHack as a Gymnasium environment: seeded, truncated correctly, scored, shaped, resumable.

NLE behaves in four ways that this module works around:

- `reset(seed=…)` is ignored, so the seeds are set before each reset.
- NLE's own step limit reports a death, so the wrapper's limit lies below it.
- The observation after a death is all zeros, so the score is read before.
- Games cannot be saved, so a state is the seeds and the actions, which are replayed.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from nle import nethack

from pipeline.config import EnvironmentSection
from pipeline.environments.actions import actions_of
from pipeline.environments.level import MAP_SHAPE, Level
from pipeline.environments.paths import GOALS, Paths

OBSERVATION_KEYS = ("glyphs", "blstats")
# The hero may go elsewhere than the key says, or `>` ends the flight.
_UNSURE = nethack.BL_MASK_CONF | nethack.BL_MASK_STUN | nethack.BL_MASK_LEV


@dataclass(frozen=True)
class Episode:
    """A finished episode."""

    score: float
    """The game's own score (blstats)."""
    task_return: float
    """Sum of the environment's rewards, not shaped."""
    steps: int
    depth: int
    """Deepest dungeon level that was reached."""
    died: bool
    """Whether the hero died; if not, the step cap ended the episode or the task was done."""


class StateMismatch(RuntimeError):
    """A replayed game did not arrive where it was saved."""


def available_environments() -> list[str]:
    """The ids of NLE's environments, as Gymnasium knows them."""
    import nle.env  # noqa: F401 - registers

    # The challenge forbids setting seeds, so its runs could not be repeated.
    return sorted(name for name in gym.registry if name.startswith("NetHack") and "Challenge" not in name)


def check_environment(environment_id: str) -> str | None:
    """What is wrong with an environment's id, with the nearest valid one; None if it is valid."""
    names = available_environments()
    if environment_id in names:
        return None
    nearest = difflib.get_close_matches(environment_id, names, n=1, cutoff=0.0)
    return f"no such environment: {environment_id!r}; nearest: {nearest[0]}; allowed: {', '.join(names)}"


def count_actions(config: EnvironmentSection) -> int:
    """Number of actions of the environment."""
    game = NetHackGame(config, 0)
    game.close()
    return int(game.action_space.n)  # type: ignore[attr-defined]


_CHARACTER = (
    ["arc", "bar", "cav", "hea", "kni", "mon", "pri", "ran", "rog", "sam", "tou", "val", "wiz"],
    ["hum", "elf", "dwa", "gno", "orc"],
    ["law", "neu", "cha"],
    ["mal", "fem"],
)


def check_character(character: str) -> str | None:
    """What is wrong with a character; None if it is valid.

    A character is role-race-alignment-gender, where words may be left out from the right, or @ for any.
    """
    words = character.split("-")
    known = all(word in names for word, names in zip(words, _CHARACTER, strict=False))
    if character == "@" or (len(words) <= len(_CHARACTER) and known):
        return None
    allowed = "-".join("|".join(names) for names in _CHARACTER)
    return f"no such character: {character!r}; allowed: {allowed}, such as mon-hum-neu-mal, or @ for any"


class NetHackGame(gym.Wrapper[dict[str, np.ndarray], Any, dict[str, np.ndarray], Any]):
    """A game of NetHack with shaped reward, as a Gymnasium environment.

    Observations are `glyphs` (21, 79) int16, `blstats` (27,) int64, and four arrays for a policy without memory:

    - `underfoot` () int16: the glyph of what is built on the hero's own square (floor, door, stairs …), as last seen,
      because the hero covers it on the screen. It is STONE if the square has not been seen, as where a game or a level
      begins.
    - `visited` (21, 79) 0 or 1: the squares of this level on which the hero has been.
    - `paths` (3, 2) −1, 0 or 1: columns and rows of the first step of the shortest path to the nearest frontier, object
      and stairs down (:mod:`pipeline.environments.paths`); all 0 if the configuration has no paths.
    - `action_mask` (A,) 0 or 1: the actions that NetHack does not refuse
      (:mod:`pipeline.environments.actions`); all 1 if the configuration does not want a mask.

    Args:
        config: id, character, step cap and the coefficients of the reward.
        seed: seed of this instance's own sequence of games.
        also: further arrays of NLE to observe, such as `tty_chars`.
    """

    def __init__(
        self, config: EnvironmentSection, seed: int | np.random.SeedSequence, also: tuple[str, ...] = ()
    ) -> None:
        import nle.env  # noqa: F401 - registers

        env = gym.make(
            config.id,
            disable_env_checker=True,
            max_episode_steps=config.max_episode_steps,
            character=config.character,
            observation_keys=OBSERVATION_KEYS + also,
            savedir=None,
            fix_moon_phase=True,
        )
        env.unwrapped._max_episode_steps = config.max_episode_steps + 1  # type: ignore[attr-defined]
        super().__init__(env)
        keys: list[int] = env.unwrapped.actions  # type: ignore[attr-defined]
        memory = {
            "underfoot": gym.spaces.Box(0, nethack.MAX_GLYPH, shape=(), dtype=np.int16),
            "visited": gym.spaces.MultiBinary(MAP_SHAPE),
            "paths": gym.spaces.Box(-1, 1, shape=(len(GOALS), 2), dtype=np.int8),
            "action_mask": gym.spaces.MultiBinary(len(keys)),
        }
        self.observation_space = gym.spaces.Dict({**env.observation_space.spaces, **memory})  # type: ignore[attr-defined]
        self._shaping = config.shaping
        self._with_paths = config.paths != "none"
        self._masked = config.action_mask
        self._actions = actions_of(tuple(keys))
        self._random = np.random.default_rng(seed)
        self._seeds = (0, 0)
        self._played: list[int] = []
        self.last_episode: Episode | None = None
        self.new_squares = 0
        """Number of squares that the present observation shows for the first time."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the next game of this instance's sequence; `seed` restarts the sequence."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        core, disp = self._random.integers(1, 2**31 - 1, size=2)
        return self._start((int(core), int(disp)))

    def _start(self, seeds: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
        self._seeds, self._played = seeds, []
        self.env.unwrapped.seed(*seeds, reseed=False)  # type: ignore[attr-defined]
        observation, _ = self.env.reset()
        blstats = observation["blstats"]
        self._score = float(blstats[nethack.NLE_BL_SCORE])
        self._task_return = 0.0
        self._deepest = int(blstats[nethack.NLE_BL_DEPTH])
        x, y = blstats[nethack.NLE_BL_X], blstats[nethack.NLE_BL_Y]
        self._own_glyph = int(observation["glyphs"][y, x])
        self._levels: dict[tuple[int, int], tuple[Level, Paths]] = {}
        self._explore(observation)
        return observation | self._memory, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Plays one action; returns observation, shaped reward, terminated, truncated and an empty dict."""
        self._played.append(int(action))
        tried = None if self._asks else self._actions.steps[int(action)]
        observation, task_reward, terminated, truncated, info = self.env.step(int(action))
        task_reward = float(task_reward)
        self._task_return += task_reward
        reward = self._shaping.task * float(np.sign(task_reward) * np.log1p(abs(task_reward)))
        if not terminated:
            self._score = float(observation["blstats"][nethack.NLE_BL_SCORE])
            reward += self._explore(observation, tried)
        observation = observation | self._memory
        if terminated or truncated:
            # NLE writes the next game into the same buffers, so the last observation is copied.
            observation = {key: np.array(value) for key, value in observation.items()}
            self.last_episode = Episode(
                score=self._score,
                task_return=self._task_return,
                steps=len(self._played),
                depth=self._deepest,
                died=terminated and info["end_status"] == info["end_status"].DEATH,
            )
        return observation, reward, terminated, truncated, {}

    @property
    def score(self) -> float:
        """The game's own score at the last moment in which the hero was alive."""
        return self._score

    def _explore(self, observation: dict[str, np.ndarray], tried: tuple[int, int] | None = None) -> float:
        """Records the observation; returns the reward for new squares, new depths and getting nearer to stairs down.

        `tried`: columns and rows of the step that the action was meant to be.
        """
        blstats, shaping = observation["blstats"], self._shaping
        key = int(blstats[nethack.NLE_BL_DNUM]), int(blstats[nethack.NLE_BL_DLEVEL])
        arrived = key not in self._levels
        if arrived:
            level = Level()
            self._levels[key] = level, Paths(level)
        level, paths = self._levels[key]
        self.new_squares = level.look(observation["glyphs"])
        seen = float(np.log1p(self.new_squares))
        reward = 0.0 if arrived else shaping.exploration * seen  # arriving on a level shows squares without exploring

        depth = int(blstats[nethack.NLE_BL_DEPTH])
        if depth > self._deepest:
            reward += shaping.descent * (depth - self._deepest)
            self._deepest = depth

        x, y = int(blstats[nethack.NLE_BL_X]), int(blstats[nethack.NLE_BL_Y])
        if self._with_paths and tried is not None and level.at == (x, y):
            paths.tried_in_vain(x, y, *tried)
        level.walk(x, y)
        steps = paths.first_steps(x, y) if self._with_paths else np.zeros((len(GOALS), 2), dtype=np.int8)
        self._memory = {
            "underfoot": level.features[y, x],
            "visited": level.visited,
            "paths": steps,
            "action_mask": self._offered(observation, level, x, y),
        }
        return reward + shaping.stairs * level.nearer_to_stairs(x, y)

    def _offered(self, observation: dict[str, np.ndarray], level: Level, x: int, y: int) -> np.ndarray:
        """Whether each action is offered to a hero at (x, y), (A,) 0 or 1."""
        everything = (
            not self._masked
            or observation["glyphs"][y, x] != self._own_glyph  # the hero is a monster, which may walk through walls
            or observation["blstats"][nethack.NLE_BL_CONDITION] & _UNSURE
            or self._asks
        )
        return self._actions.every if everything else self._actions.offered(level, x, y)

    def state(self) -> dict[str, Any]:
        """What `restore` needs to reach this very moment again, as plain numbers."""
        return {
            "random": self._random.bit_generator.state,
            "seeds": list(self._seeds),
            "actions": list(self._played),
            "blstats": [int(value) for value in self._blstats],
        }

    @property
    def _asks(self) -> bool:
        """Whether the game waits for an answer, so that the next key is none of its commands."""
        nle: Any = self.unwrapped
        yes_or_no, line, _ = nle.last_observation[nle._internal_index][1:4]
        return bool(yes_or_no or line)

    @property
    def _blstats(self) -> np.ndarray:
        """The present bottom-line statistics (27,)."""
        nle: Any = self.unwrapped
        return nle.last_observation[nle._observation_keys.index("blstats")]

    def restore(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
        """Replays a saved state and returns the observation there.

        Raises:
            StateMismatch: the replay took another course; the caller starts a new game instead.
        """
        self._random.bit_generator.state = state["random"]
        seeds = (int(state["seeds"][0]), int(state["seeds"][1]))
        observation, _ = self._start(seeds)
        for action in state["actions"]:
            observation, _, terminated, truncated, _ = self.step(action)
            if terminated or truncated:
                raise StateMismatch(f"the game with seeds {seeds} ended during its replay")
        if [int(value) for value in observation["blstats"]] != state["blstats"]:
            raise StateMismatch(f"the game with seeds {seeds} came out differently in its replay")
        return observation  # type: ignore[no-any-return]
