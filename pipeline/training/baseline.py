"""The random baseline: what random play scores under the same step cap, played beside the training."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from pipeline.config import ExperimentConfig
from pipeline.environments.vector import random_episodes
from pipeline.processes.forking import may_fork
from pipeline.processes.leash import call_itself, die_with_parent
from pipeline.processes.signals import ignore_asking
from pipeline.training.measure import bootstrap_mean

log = logging.getLogger("trainer")
NAME = "random baseline"
"""What `ps` shows of the process."""


def measure_random(config: ExperimentConfig) -> dict[str, float]:
    """Score of random play under this experiment's step cap: mean and 95 % interval, as metrics."""
    episodes = random_episodes(config.environment, config.environment.random_episodes, config.training.seed)
    scores = np.array([episode.score for episode in episodes])
    low, high = bootstrap_mean(scores)
    return {"random/score": float(scores.mean()), "random/score_low": low, "random/score_high": high}


class Baseline:
    """The baseline of a training that has just begun.

    A forked process plays it, at a low priority. Where this process has threads, which a fork would lose, it is
    played here, before the constructor returns.

    Args:
        known: the result, if an earlier attempt has measured it.
    """

    def __init__(self, config: ExperimentConfig, known: dict[str, float] | None) -> None:
        self._result = known
        self._process: multiprocessing.process.BaseProcess | None = None
        if known is not None:
            return
        if not may_fork():
            self._result = measure_random(config)
            return
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_play, args=(os.getpid(), theirs, self._connection, config), name=NAME, daemon=True
        )
        try:
            self._process.start()
        except OSError as error:
            log.warning("the random baseline could not be played: %s", error)
            self._process = None
            self._connection.close()
        theirs.close()

    def result(self, keep_waiting: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """The metrics, once; None while they are not there, and after they have been returned.

        Where the process has died, there are none, and the log says so: a training does without.

        Args:
            keep_waiting: asked twice a second, while they are not there, whether to wait for them.
        """
        while self._process is not None and not self._connection.poll() and keep_waiting():
            self._connection.poll(0.5)
        if self._process is not None and self._connection.poll():
            try:
                self._result = self._connection.recv()
            except EOFError:
                self._process.join()
                log.warning("the random baseline could not be played, exit code %s", self._process.exitcode)
            self.close()
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Ends the process, whether it is done or not."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def _play(owner: int, connection: Connection, inherited: Connection, config: ExperimentConfig) -> Any:
    """The process: it dies with its owner, and leaves signals to the whole group to it."""
    ignore_asking()
    inherited.close()
    call_itself(NAME)
    die_with_parent(owner)
    os.nice(5)  # the training comes first
    with contextlib.suppress(BrokenPipeError):
        connection.send(measure_random(config))
