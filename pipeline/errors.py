"""Errors that end a command with one clear line and an exit code."""

from __future__ import annotations

EXIT_HEALTHY = 0
EXIT_BAD_INPUT = 2
EXIT_EXHAUSTED = 3
EXIT_INFRASTRUCTURE = 4
EXIT_INTERRUPTED = 130


class BadInput(ValueError):
    """What a person wrote cannot be used: file, key, value and what is allowed, in one line; several have one each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class InfrastructureFailure(RuntimeError):
    """Something that training needs is out of reach: the store, the disk."""


class DiskFull(InfrastructureFailure):
    """There is no room on this machine; that does not pass by waiting."""


class StoreAway(InfrastructureFailure):
    """The store does not answer, or not now; it may come back."""


class StoreRestarts(StoreAway):
    """A web server answers in place of the store (502, 503, 504): what stands behind it is about to come back."""
