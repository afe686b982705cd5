"""What a process of this project does before it loads anything large."""

from __future__ import annotations

import gc


def start_quickly() -> None:
    """Loading torch and MLflow makes a million objects that stay; they need not be searched for cycles over and over.

    A sixth of a start's time (docs/decisions.md).
    """
    gc.set_threshold(20_000, 10, 10)  # Python's own: 700
