"""The three phases of a run."""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """A phase of a run; its number is what the metric `phase` logs."""

    WARMUP = 0
    TRANSITION = 1
    FINETUNE = 2

    @property
    def key(self) -> str:
        """The name in configurations: `warmup`."""
        return self.name.lower()

    @property
    def label(self) -> str:
        """The name for people: `warm-up`."""
        return ("warm-up", "transition", "fine-tune")[self]

    @classmethod
    def logged(cls, value: float | None) -> Phase | None:
        """The phase with this number; None where a run logs no phase, or a number that is none."""
        return next((phase for phase in cls if phase == value), None)
