"""What commands share: the console, files that are private, and a store in which everything is true."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from pipeline.errors import (
    EXIT_EXHAUSTED,
    EXIT_HEALTHY,
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    InfrastructureFailure,
)
from pipeline.processes.console import PlainConsole

if TYPE_CHECKING:
    from pipeline.tracking.store import Store  # loads MLflow, which `ladder check` and a refusal do without

EXIT_OF_OUTCOME = {
    "healthy": EXIT_HEALTHY,
    "compared": EXIT_HEALTHY,
    "exhausted": EXIT_EXHAUSTED,
    "interrupted": EXIT_INTERRUPTED,
    "error": EXIT_INFRASTRUCTURE,
}


def make_console(*, aside: bool = False) -> Console:
    """As wide as the terminal; in a pipe wide enough that nothing is cut. `aside`: standard error's."""
    return PlainConsole(aside=aside)


def private_files() -> int:
    """Closes what is written from now on to others; the user's umask decides for groups. Returns the umask.

    This user can read and write it, whatever the umask says.
    """
    usual = os.umask(0o077)
    os.umask((usual | 0o007) & 0o077)
    return usual


def make_truthful(store: Store, console: Console) -> None:
    """Ends the runs that are RUNNING although their orchestrator is gone, if the store can be written."""
    from pipeline.experiment.recovery import reconcile

    usual = private_files()
    with contextlib.suppress(InfrastructureFailure, OSError):
        reconcile(store, partial(console.print, markup=False, soft_wrap=True))
    os.umask(usual)
