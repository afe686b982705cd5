"""The time that trainers spend in a queue, which no budget counts."""

from __future__ import annotations

import time


class Queue:
    """How long trainers have waited for their turn."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = None
        self.last = 0.0
        """How long the last wait took."""

    @property
    def seconds(self) -> float:
        """All waits together, the present one included."""
        return self._before + (time.monotonic() - self._since if self._since is not None else 0.0)

    def note(self, waits: bool) -> None:
        """Takes note of whether one waits now."""
        if waits and self._since is None:
            self._since = time.monotonic()
        elif not waits and self._since is not None:
            self.last = time.monotonic() - self._since
            self._before, self._since = self._before + self.last, None
