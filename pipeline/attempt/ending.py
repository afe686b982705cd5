"""How an attempt ended, as its folder says it (`ending.json`): on disk first, then in the store."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import AttemptFolder
from pipeline.health.verdict import Verdict
from pipeline.secrets import without_passwords


class Ending(BaseModel):
    """What is known of an attempt when its process is gone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    seconds: float
    """Wall clock of the attempt in seconds, all of its parts together if it was interrupted."""
    at: int
    """When it ended, in milliseconds since 1970."""

    @staticmethod
    def now(verdict: Verdict, seconds: float) -> Ending:
        return Ending(verdict=verdict, seconds=seconds, at=int(time.time() * 1000))

    @staticmethod
    def path(folder: Path) -> Path:
        return AttemptFolder(folder).ending

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.path(folder), without_passwords(self.model_dump_json(indent=2)))

    @staticmethod
    def read(folder: Path) -> Ending | None:
        """Returns the ending that an attempt's folder has, or None."""
        with contextlib.suppress(OSError, ValidationError):
            return Ending.model_validate_json(Ending.path(folder).read_text(encoding="utf-8"))
        return None
