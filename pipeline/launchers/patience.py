"""How long a cluster's launcher waits for what: the engine, a node's files, an end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Times in seconds, which tests shorten."""

    engine: float = 10.0
    """Between two questions to the engine about a job."""
    folder: float = 0.5
    """Between two looks at the folder of a job."""
    late: float = 20.0
    """Files of a node may be seen so late here. For so long, a job that has ended may still say how."""
    away: float = 1800.0
    """An engine that does not answer for so long takes no job any more."""
    final: float = 60.0
    """For so long, an engine is waited for to say why a trainer was ended by a signal."""
    hold: float = 60.0
    """For so long, a place is held for an orchestrator that gives no sign."""
