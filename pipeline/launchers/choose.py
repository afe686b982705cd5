"""Which launcher an experiment gets. A new kind of launcher is added here."""

from __future__ import annotations

from pipeline.launchers.base import Launcher
from pipeline.launchers.local import LocalLauncher


def make_launcher() -> Launcher:
    """The launcher of an experiment: processes of this machine."""
    return LocalLauncher()
