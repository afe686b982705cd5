"""The interface of a launcher. Another engine (Slurm, Ray) is another file that implements it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.exit import Exit

OWN_TRAINER = (sys.executable, "-P", "-m", "pipeline.training")
"""The command of the project's own trainer."""


class CannotStart(OSError):
    """A command that cannot be executed, however often it is tried. The message says why."""


class Job(Protocol):
    """A running trainer."""

    log: Path
    """The file with everything that it prints."""

    @property
    def waiting(self) -> str | None:
        """What it waits for, such as `queued in slurm as job 12 (Priority)`; None: it is at work, or has ended."""

    @property
    def place(self) -> str:
        """Where it is at work, such as `n3, slurm job 12`; empty while that is not known."""

    @property
    def late_seconds(self) -> float:
        """So much later than it happens, this process may see what the trainer does."""

    def wait(self, seconds: float) -> Exit | None:
        """Returns how it ended, or None if it still runs after so many seconds. Returns the same when asked again."""

    def terminate(self) -> None:
        """Asks it to end in order (SIGTERM). Returns at once."""

    def kill(self) -> None:
        """Kills it and all that it has started. Returns when they are gone."""


class Launcher(Protocol):
    """Starts trainers."""

    def warm_up(self) -> None:
        """Prepares the launch of the project's own trainer, so that it starts sooner. The call is optional."""

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Job:
        """Starts a command (a list of words, no shell) with these variables added. Its log is in the folder.

        Raises:
            CannotStart: the command cannot be executed, whenever it is tried.
            OSError: it cannot be started now.
        """

    def hold_place(self, attempt: AttemptFolder, *, own: bool) -> str | None:
        """Prepares the next launch while this attempt is at work, and returns at once. That launch takes the place.

        It may be called again and again. `own`: the project's own trainer will be launched. Returns what holds the
        place, in the engine's words; None: nothing does, because nothing is gained, or because it was lost.
        """

    def give_up_place(self) -> None:
        """The next launch does not come after all. Returns at once, and leaves nothing of the place."""

    def end_place(self, folder: Path) -> None:
        """Ends what holds the place with this folder, whose orchestrator is gone."""

    def attach(self, attempt: Path) -> Job | None:
        """Returns the job of the attempt with this file, which an orchestrator that is gone has launched.

        None: it has none that can be taken over, because a trainer here does not outlive its orchestrator.
        """

    def remains(self, attempt: Path) -> Literal["nothing", "ended", "alive"]:
        """Whether there is a job to attach to, and whether it still waits or runs."""

    def how_it_ended(self, attempt: Path) -> Exit | None:
        """How the job of the attempt with this file has ended; None: there is no job to attach to.

        It returns when that is certain. What is left of the job stays as it is, so it can be asked again.

        Raises:
            InfrastructureFailure: it is not certain within the time that an engine has to say it.
        """

    def end_remains(self, attempt: Path) -> int:
        """Ends what still runs of the attempt with this file, whose orchestrator is gone. Returns how many."""

    def close(self) -> None:
        """Ends all that it has started. A later launch starts anew."""
