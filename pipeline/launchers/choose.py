"""Which launcher an experiment gets. A new kind of launcher is added here."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from pipeline.attempt.file import AttemptFile
from pipeline.config import ExperimentConfig
from pipeline.launchers.base import Launcher
from pipeline.launchers.engine import Engine
from pipeline.launchers.local import LocalLauncher
from pipeline.launchers.ray import Ray
from pipeline.launchers.remote import RemoteLauncher
from pipeline.launchers.slurm import Slurm


def make_launcher(config: ExperimentConfig | None = None) -> Launcher:
    """The launcher of an experiment: `launcher.kind`. None: processes of this machine."""
    if config is not None and (engine := make_engine(config)) is not None:
        return RemoteLauncher(engine, config.launcher.lease_seconds, config.trainer.grace_seconds)
    return LocalLauncher()


def make_engine(config: ExperimentConfig) -> Engine | None:
    """The cluster of an experiment; None: it runs on this machine."""
    match config.launcher.kind:
        case "slurm":
            return Slurm(config.launcher.options, config.trainer.grace_seconds)
        case "ray":
            assert config.launcher.address is not None, "the configuration has seen to that"
            return Ray(config.launcher.address, config.launcher.request, config.trainer.grace_seconds)
        case _:
            return None


def launcher_of(attempt: Path) -> Launcher:
    """The launcher with which the attempt with this file was launched."""
    try:
        return make_launcher(AttemptFile.read(attempt).config)
    except (OSError, ValidationError):  # it has not begun
        return make_launcher()
