"""`python -m pipeline.training.replay`: a checkpoint plays a game in the terminal, with the router's weights beside it.

`ladder watch` starts it as a process of its own, because the command line does not load torch.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder
from pipeline.processes.console import PlainConsole
from pipeline.training.film import COLOURS
from pipeline.training.player import Player
from pipeline.training.recording import Frame, moments

_BAR = 20


def replay(player: Player, seed: int, pace: float, console: Console, about: str) -> str:
    """Plays one game on the console; returns how it ended.

    If the console is not a terminal, only the last screen is printed.

    Args:
        player: the policy that plays.
        seed: seed of the game and of the actions.
        pace: seconds between two steps.
        console: where the game is shown.
        about: first words of the title.
    """
    step, score, frame, ended = 0, 0.0, None, None
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        for step, (frame, score, ended) in enumerate(moments(player, seed), start=1):  # noqa: B007 - read below
            if console.is_terminal:
                live.update(screen(frame, player.experts, f"{about}, step {step}, score {score:.0f}"), refresh=True)
                time.sleep(pace)
    if frame is not None:
        console.print(screen(frame, player.experts, f"{about}, step {step}, score {score:.0f}"))
    how = "the hero died" if ended and ended.died else "cut at the step cap" if ended else "it was left"
    return f"score {score:.0f} after {step} steps, {how}"


def screen(frame: Frame, experts: Sequence[str], title: str) -> RenderableType:
    """The game's screen, with the router's weights as bars beside it."""
    rows = [_row(chars, colours) for chars, colours in zip(frame.chars, frame.colours, strict=True)]
    weights = Table.grid(padding=(0, 1))
    weights.add_row(Text(title, style="bold"))
    for name, weight in zip(experts, frame.weights, strict=False):
        weights.add_row(Text(f"\n{name} {weight:.0%}"))
        full = round(_BAR * float(weight))
        weights.add_row(Text("█" * full + "·" * (_BAR - full), style="cyan"))
    both = Table.grid(padding=(0, 3))
    both.add_row(Group(*rows), weights)
    return both


def _row(chars: np.ndarray, colours: np.ndarray) -> Text:
    """One line of the screen, as runs of one colour each."""
    text = Text(no_wrap=True)
    edges = np.flatnonzero(np.diff(colours, prepend=-1, append=-1))
    for start, end in pairwise(edges):
        text.append(bytes(chars[start:end]).decode("latin-1"), style=COLOURS[int(colours[start])])
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.replay")
    parser.add_argument("attempt", type=Path, help="an attempt's folder")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint's .pt file")
    parser.add_argument("--seed", type=int, default=1, help="seed of the game")
    parser.add_argument("--pace", type=float, default=0.08, help="seconds between two steps")
    given = parser.parse_args(arguments)
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    player = Player.from_checkpoint(given.checkpoint, AttemptFile.read(AttemptFolder(given.attempt).file).config)
    console = PlainConsole(columns=120)
    try:
        console.print(replay(player, given.seed, given.pace, console, f"seed {given.seed}"))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
