"""Games played by a trained policy, recorded with the terminal's screen and the router's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.environments.nethack import Episode
from pipeline.training.player import OBSERVED, Player

TERMINAL = ("tty_chars", "tty_colors")
LONGEST = 5000
"""Steps after which a recording ends, even if the game's own cap is higher."""


@dataclass(frozen=True)
class Frame:
    """One moment of a game: the screen, and how the policy mixed its experts."""

    chars: np.ndarray
    """(24, 80) uint8, the screen's characters."""
    colours: np.ndarray
    """(24, 80) int8, the terminal's colours 0 – 15."""
    weights: np.ndarray
    """(E,) weights of the experts: α, or a Gumbel router's draw."""
    observation: dict[str, np.ndarray]
    """The arrays of the observation that a player reads."""


@dataclass
class Recording:
    """A game from its beginning."""

    frames: list[Frame] = field(default_factory=list)
    episode: Episode | None = None
    """How the game ended; None if the recording was cut at `LONGEST`."""

    @property
    def score(self) -> float:
        """The game's own score; −∞ if the recording was cut."""
        return self.episode.score if self.episode else float("-inf")


def record(player: Player, seeds: list[int], sign_of_life: Callable[[], None] = lambda: None) -> list[Recording]:
    """Plays one whole game for each seed, side by side; returns the recordings.

    They are reproducible except for NLE's own clock.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds[0])
        games = [player.new_game(seed, TERMINAL) for seed in seeds]
        recordings = [Recording() for _ in seeds]
        current = {index: game.reset()[0] for index, game in enumerate(games)}
        for _ in range(LONGEST):
            sign_of_life()
            output = player.look(player.batched(list(current.values())))
            chosen = torch.multinomial(output.logits.softmax(-1), 1).squeeze(-1).tolist()
            weights = output.weights.numpy()
            for row, (index, action) in enumerate(zip(list(current), chosen, strict=True)):
                recordings[index].frames.append(_frame(current[index], weights[row]))
                observation, _, terminated, truncated, _ = games[index].step(action)
                if terminated or truncated:
                    recordings[index].episode = games[index].last_episode
                    del current[index]
                else:
                    current[index] = observation
            if not current:
                break
        for game in games:
            game.close()
    return recordings


def moments(player: Player, seed: int) -> Iterator[tuple[Frame, float, Episode | None]]:
    """Plays one game; yields at each moment the frame, the score, and at the last one the finished episode."""
    game = player.new_game(seed, TERMINAL)
    torch.manual_seed(seed)
    observation, _ = game.reset()
    done = False
    while not done:
        output = player.look(player.batched([observation]))
        frame = _frame(observation, output.weights[0].numpy())
        action = int(torch.multinomial(output.logits.softmax(-1), 1))
        observation, _, terminated, truncated, _ = game.step(action)
        done = terminated or truncated
        yield frame, game.score, game.last_episode if done else None
    game.close()


def _frame(observation: Any, weights: np.ndarray) -> Frame:
    """A frame that holds copies, because NLE overwrites its buffers at the next step."""
    return Frame(
        chars=np.array(observation["tty_chars"]),
        colours=np.array(observation["tty_colors"]) & 15,
        weights=np.array(weights),
        observation={key: np.array(observation[key]) for key in OBSERVED},
    )
