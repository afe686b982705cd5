"""Shared fixtures: a configuration small enough for tests, on real NetHack."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fallbacks.ladder import BUILT_IN
from pipeline.config import ExperimentConfig
from pipeline.tracking.environment import prepare_mlflow
from pipeline.training.rollout import Played
from pipeline.training.trainer import Trainer
from pipeline.training.worker import Worker

if TYPE_CHECKING:
    from pipeline.tracking.store import Store

prepare_mlflow()  # as every command does, before it imports MLflow
logging.getLogger("nle.env.base").setLevel(logging.WARNING)
torch.set_num_threads(1)  # as the trainer does; two threads each would contend for two cores

SMALL: dict[str, Any] = {
    "environment.num_envs": 4,
    "environment.max_episode_steps": 40,
    "environment.max_entities": 8,
    "environment.crop_size": 5,
    "environment.random_episodes": 4,
    "policy.hidden_size": 16,
    "training.workers": 1,
    "training.rollout_steps": 16,
    "training.batch_size": 32,
    "training.ppo_epochs": 2,
    "training.warmup_steps": 4,
    "training.episodes": 12,
    "tracking.publish": False,
    "training.checkpoint_every_episodes": 4,
    "training.score_window": 4,
    "phases.warmup_until": 4,
    "phases.transition_until": 8,
}
RUNGS = tuple(BUILT_IN)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=("sqlite", "server"), default="sqlite", help="of all end-to-end tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups that one worker has to run alone come first, so that none of them is what everybody waits for."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def small_config(**changes: Any) -> ExperimentConfig:
    """A small experiment; changes as `training__seed=3`."""
    return ExperimentConfig().with_values(SMALL | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with nothing in it. To make one takes 70 migrations: as long as all that a test itself does."""
    from pipeline.tracking.access import create_database  # loads MLflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    create_database(path, (path.parent / "artifacts").as_uri())
    return path


@pytest.fixture
def empty_store(tmp_path: Path, empty_database: Path) -> Store:
    """The same, opened, with this test's folder as its root."""
    from pipeline.tracking.access import default_uri
    from pipeline.tracking.store import Store  # loads MLflow

    shutil.copy(empty_database, tmp_path)
    return Store(default_uri(tmp_path), tmp_path)


@pytest.fixture(params=RUNGS)
def rung_config(request: pytest.FixtureRequest) -> ExperimentConfig:
    """The small configuration at each of the five rungs."""
    return BUILT_IN[request.param].transform(small_config())


def collect_all(trainer: Trainer) -> list[Worker]:
    """Plays a rollout, and makes ready to learn from it. Returns the workers that have the samples."""
    _collect(trainer)
    return trainer.workers.here


def collect(trainer: Trainer) -> tuple[Worker, Played]:
    """The same for a single worker, which is returned with what has been played."""
    played = _collect(trainer)
    return trainer.workers.here[0], played


def _collect(trainer: Trainer) -> Played:
    played = Played.join(trainer.workers.call("collect", trainer.finished))
    trainer.finished += len(played.episodes)
    trainer.learn_from(played)
    return played


def update(trainer: Trainer, phase: int = 0) -> dict[str, float]:
    """One rollout and one update, without a report."""
    _collect(trainer)
    return trainer.ppo.update(0, phase, trainer.last_good)
