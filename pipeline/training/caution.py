"""What a rollback leaves behind: a smaller learning rate for a while, and a count that clean updates forgive."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

HELD, RETURNING = 20, 20
"""Clean updates in which the learning rate stays reduced after a rollback, and those in which it doubles."""
FORGIVEN_AFTER = 50
"""Clean updates since the last rollback, or since the last one that was forgiven, that forgive one."""
_LEAST = 1 / 16


@dataclass
class Caution:
    """Halves the learning rate at each rollback, and brings it back gradually.

    The state that a rollback restores has just led to numbers that are not finite. With the same rate it may well do so
    again. This is no part of that state: a rollback must not undo it.
    """

    factor: float = 1.0
    """The learning rate is multiplied by this."""
    rollbacks: int = 0
    """Rollbacks that are not forgiven: many in a short time are a failure, rare ones in a long run are none."""
    clean: int = 0
    """Updates since the last rollback without any minibatch that was not finite."""

    def note(self, *, rolled_back: bool, skipped: int) -> None:
        """Takes note of an update.

        Args:
            skipped: minibatches of the update that were not finite.
        """
        if rolled_back:
            self.factor, self.rollbacks, self.clean = max(self.factor / 2, _LEAST), self.rollbacks + 1, 0
        elif not skipped:
            self.clean += 1
            if self.clean > HELD:
                self.factor = min(1.0, self.factor * 2 ** (1 / RETURNING))
            if self.clean % FORGIVEN_AFTER == 0:
                self.rollbacks = max(0, self.rollbacks - 1)

    def state(self) -> dict[str, Any]:
        """The numbers, for a checkpoint."""
        return asdict(self)
