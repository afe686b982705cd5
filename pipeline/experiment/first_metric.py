"""A script that is at work and says nothing: the user learns it in the first minutes, not at the end of the night."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.attempt.file import AttemptFile
from pipeline.foreign.files import mark_of
from pipeline.foreign.follow import others
from pipeline.foreign.script_files import ScriptFiles

UNTIL_TOLD = 60.0
"""Seconds of output without any metric after which it is told."""
_ONLY_PRINTS = (
    ". What it prints is not read: it has to log by mlflow.log_metrics, or to write a file that `trainer.metrics` names"
)


class FirstMetric:
    """Waits for the first metric of a script.

    Args:
        working: the folder in which the script runs.
        root: the tracking root.
    """

    def __init__(self, file: AttemptFile, files: ScriptFiles, working: Path, root: Path) -> None:
        self._kind = file.config.trainer.metrics.kind
        self._pattern = file.config.trainer.metrics.path
        self._where, self._files, self._working, self._root = file.where, files, working, root
        self._is_waiting = file.command is not None
        self._since: float | None = None

    def news(self, *, has_logged: bool) -> str | None:
        """What the user should know, once; None: nothing, or nothing yet. It is asked at each poll."""
        if has_logged or not self._is_waiting:
            self._is_waiting = False
            return None
        if self._since is None:
            log = mark_of(self._where.log)
            self._since = time.time() if log is not None and log.size else None
            return None
        if (waited := time.time() - self._since) < UNTIL_TOLD:
            return None
        self._is_waiting = False
        return f"no metric has arrived yet, after {waited:.0f} s with output; {self._cause(self._since)}"

    def _cause(self, since: float) -> str:
        """The likely cause, and what to do."""
        found = others(self._kind, self._where, self._working, self._root, since)
        instead = next((f"; it writes {path}, which trainer.metrics={kind} reads" for kind, path in found.items()), "")
        if self._kind == "mlflow":
            return f"the script has logged nothing to MLflow{instead or _ONLY_PRINTS}"
        files = self._files.metrics.files if self._files.metrics is not None else []
        if files:
            named = ", ".join(map(str, files[:3]))
            return f"{named} has no line with a number yet{instead}"
        where = self._pattern or f"with a usual name in {self._working}, or any in {self._where.path}"
        return f"no {self._kind} file, {where}, is new or has grown{instead}"
