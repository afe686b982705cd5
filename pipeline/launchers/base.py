"""What an orchestrator needs of a place where trainers run. Another engine (Slurm, Ray) is another such file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.launchers.exit import Exit


class Job(Protocol):
    """A running trainer."""

    log: Path
    """Everything that it prints."""

    def wait(self, seconds: float) -> Exit | None:
        """How it ended, or None if it still runs after so many seconds. The same again once it has ended."""

    def terminate(self) -> None:
        """Asks it to end in good order (SIGTERM), and returns at once."""

    def kill(self) -> None:
        """Ends it and all that it has started, and returns when they are gone."""


class Launcher(Protocol):
    """Starts trainers."""

    def warm_up(self) -> None:
        """May be called before the first launch of the project's own trainer, so that it starts sooner."""

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Job:
        """Starts a command (a list of words, no shell) with these variables added; logs go to the folder.

        Raises:
            OSError: it cannot be started.
        """

    def end_remains(self, attempt: Path) -> int:
        """Ends what still runs here of the attempt with this file, whose orchestrator is gone; returns how many."""

    def close(self) -> None:
        """Nothing more will be launched; what was kept for that is let go."""
