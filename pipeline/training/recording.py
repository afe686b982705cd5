"""Games played by a trained policy, with what the terminal showed and how the router weighed."""

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
"""Steps after which a recording ends, whatever the game's own cap."""


@dataclass(frozen=True)
class Frame:
    """One moment of a game: the screen, and what the policy made of it."""

    chars: np.ndarray
    """(24, 80) uint8."""
    colours: np.ndarray
    """(24, 80) int8, 0 – 15."""
    weights: np.ndarray
    """(E,) how the experts were mixed: α, or a Gumbel router's draw."""
    observation: dict[str, np.ndarray]


@dataclass
class Recording:
    """A game from its beginning, and how it ended (None: it was cut at `LONGEST`)."""

    frames: list[Frame] = field(default_factory=list)
    episode: Episode | None = None

    @property
    def score(self) -> float:
        return self.episode.score if self.episode else float("-inf")


def record(player: Player, seeds: list[int], sign_of_life: Callable[[], None] = lambda: None) -> list[Recording]:
    """One whole game for each seed, played side by side. Reproducible but for NLE's own clock."""
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
    """One game, moment by moment: the frame, the score, and at the last one the finished episode."""
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
    """NLE overwrites its buffers at the next step, so all is copied."""
    return Frame(
        chars=np.array(observation["tty_chars"]),
        colours=np.array(observation["tty_colors"]) & 15,
        weights=np.array(weights),
        observation={key: np.array(observation[key]) for key in OBSERVED},
    )
