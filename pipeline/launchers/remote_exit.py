"""How a job of a cluster has ended, by the words of its warden and of its engine.

What the trainer did is told by the warden first. The engine says what the trainer cannot know: preempted, its node
lost, out of memory, cancelled by a person.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

from pipeline.launchers.channel import Ended
from pipeline.launchers.engine import State
from pipeline.launchers.exit import Exit

_SIGNALLED = "it got a signal, as engines send before a time limit"


def exit_by_warden(ended: Ended, state: State | None, job: str, log: Path, *, asked: bool) -> Exit:
    """The exit that a warden tells, with what only the engine knows.

    Args:
        state: how the engine says that the job has ended; None: it does not say so.
        job: the job in words.
        asked: whether this process has asked for the end, so nobody else has to explain it.
    """
    if ended.refused is not None:
        return Exit(code=ended.code, refused=ended.refused)
    found = Exit.of(ended.code, log, int(ended.killed_for_memory))
    if ended.by == "lease" and not asked:
        return replace(found, taken="its orchestrator was silent for longer than launcher.lease_seconds")
    if asked or ended.says_all:
        return found
    end = "unknown" if state is None else state.end
    if state is not None and end == "cancelled":
        return replace(found, cancelled=_cancelled(state, job))
    if state is not None and end == "taken":
        return replace(found, taken=f"{job}: {state.why}")
    if ended.by == "signal":
        return replace(found, taken=f"{job}: {_SIGNALLED}")
    return replace(found, killed_for_memory=found.killed_for_memory or end == "out_of_memory")


def exit_by_engine(state: State, job: str, log: Path) -> Exit:
    """The exit of a job that has ended and whose warden says nothing: the engine's word is all there is."""
    found = _silent(log, state.code)
    match state.end:
        case "cancelled":
            return replace(found, cancelled=_cancelled(state, job))
        case "out_of_memory":
            return replace(found, code=-signal.SIGKILL, killed_for_memory=True)
        case "taken":
            return replace(found, taken=f"{job}: {state.why}")
        case "unknown":
            return replace(found, taken=f"{job} is not known any more, and has not said how it ended")
        case _:
            return found


def taken(why: str, log: Path, code: int = -signal.SIGKILL) -> Exit:
    """The exit of a job that counts as taken away, though neither warden nor engine says that it has ended so."""
    return replace(_silent(log, code), taken=why)


def _silent(log: Path, code: int) -> Exit:
    return Exit.of(code or -signal.SIGKILL, log, 0)


def _cancelled(state: State, job: str) -> str:
    why = f" ({state.why})" if state.why not in ("", "cancelled", "stopped") else ""
    return f"{job} was cancelled{why}"
