"""What an attempt leaves for the user when it has been trained to the end: a model that plays, and pictures.

None of this may harm the attempt: if something cannot be made, the log says so and the attempt is still healthy.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.attempt.file import RUN_VARIABLE, URI_VARIABLE
from pipeline.config import ExperimentConfig
from pipeline.tracking.access import TrainerRun
from pipeline.tracking.artifacts import ATTENTION, BEST_EPISODE
from pipeline.training.attention import draw, liveliest
from pipeline.training.checkpoint import read_checkpoint
from pipeline.training.film import film
from pipeline.training.logged_model import log_player
from pipeline.training.player import Player
from pipeline.training.recording import record

log = logging.getLogger("trainer")
GAMES = 8
"""Number of games that are played to find the best one."""


def publish(config: ExperimentConfig, checkpoints: Path, sign_of_life: Callable[[], None]) -> None:
    """Logs the newest checkpoint as a model, its best game as a film, and its attention as a figure.

    They are logged to the run that the environment names.

    Args:
        config: the attempt's configuration.
        checkpoints: the folder of its checkpoints.
        sign_of_life: called now and then, because publishing may take minutes.
    """
    with _harmless("the policy could not be made ready to play"):
        run = TrainerRun(os.environ[URI_VARIABLE], os.environ[RUN_VARIABLE])
        state = read_checkpoint(max(path for path in checkpoints.glob("*.pt") if path.stem.isdigit()))
        player = Player.from_state(state, config)
        with _harmless("the model could not be logged"):
            log.info("the policy is %s", log_player(run, player, step=state["steps"]))
        with _harmless("no game could be recorded"):
            seed = config.training.seed
            games = record(player, [seed + 1000 * number for number in range(1, GAMES + 1)], sign_of_life)
            best = max(games, key=lambda each: each.score)
            title = f"score {best.score:.0f}, best of {GAMES}"
            run.log_bytes(film(best, player.experts, title), BEST_EPISODE)
            drawing = draw(player, liveliest(player, best), player.experts)
            if drawing is not None:
                run.log_bytes(drawing, ATTENTION)


@contextlib.contextmanager
def _harmless(what: str) -> Iterator[None]:
    """Logs any exception inside the context, with `what` could not be done, instead of raising it."""
    try:
        yield
    except Exception:
        log.exception("%s; the attempt itself is done", what)
