"""One question to an engine about all open jobs of this process, in place of one about each.

The job whose time has come asks for all. Each hears of itself what it would have heard alone, and is asked about next
after its own interval. There is no thread of its own: the launchers' threads come here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline.launchers.engine import AnswersForSeveral, Engine, EngineAway, State

_log = logging.getLogger("ladder")


class Askable(Protocol):
    """A job, as those see it that ask for it."""

    id: str | None

    @property
    def name(self) -> str:
        """Under which the engine knows it."""

    @property
    def may_be_asked_about(self) -> bool:
        """Whether an answer is of use to it: it is submitted, and has not ended."""

    asked_at: float
    """When a question about it began, or was in vain."""
    is_left_out: bool
    """The engine did not name it in its last answer about several, so it is asked about on its own."""
    due: float
    """When it is asked about next."""

    def begin_question(self) -> Callable[[State], None]:
        """Notes that the engine is asked about it now. Returns what takes the answer."""

    def has_no_answer(self, away: EngineAway) -> None:
        """Notes that the engine was asked about it in vain."""


class Together:
    """The open jobs that this process has in one engine."""

    def __init__(self) -> None:
        self._jobs: list[Askable] = []
        self._asking = threading.Lock()

    def join(self, job: Askable) -> None:
        """From now on, whoever asks also asks for it."""
        self._jobs.append(job)

    def leave(self, job: Askable) -> None:
        """Nobody asks for it any more. One that is not here is no error."""
        with contextlib.suppress(ValueError):
            self._jobs.remove(job)

    def ask(self, job: Askable, engine: Engine) -> None:
        """Asks about this job, and at once about all others, unless one of them has asked for it meanwhile."""
        if isinstance(engine, AnswersForSeveral):
            wished = time.monotonic()
            with self._asking:
                if job.asked_at <= wished and not job.is_left_out:
                    self._ask_for_all(job, engine)
            if not job.is_left_out:
                return
        _ask_alone(job, engine)

    def _ask_for_all(self, job: Askable, engine: AnswersForSeveral) -> None:
        others = [each for each in list(self._jobs) if each is not job and each.may_be_asked_about]
        takers: dict[Askable, Callable[[State], None]] = {}
        for each in (job, *(each for each in others if not each.is_left_out)):
            with _alone(each):
                takers[each] = each.begin_question()
        try:
            said = _answers(engine, [each.id for each in takers if each.id is not None])
        except EngineAway as away:
            for each in takers:
                each.has_no_answer(away)
            return
        for each, take in takers.items():
            with _alone(each):
                state = said.get(each.id or "")
                if state is not None:
                    take(state)
                else:
                    each.is_left_out, each.due = True, 0.0


def together_in(engine: Engine) -> Together:
    """Those that this process has in this engine. Of one that cannot answer for several, nothing is shared."""
    if isinstance(engine, AnswersForSeveral):
        return _ALL.setdefault((engine.name, engine.address), Together())
    return Together()


_ALL: dict[tuple[str, str], Together] = {}


def _answers(engine: AnswersForSeveral, jobs: Sequence[str]) -> Mapping[str, State]:
    """What the engine says. Those that are missing are to be asked about on their own."""
    if len(set(jobs)) < 2:
        return {job: engine.state(job) for job in jobs[:1]}
    try:
        return engine.states(jobs)
    except EngineAway:
        raise
    except Exception:  # an answer that is not understood is no reason to hear of none
        _log.exception("%s gives no answer about %d jobs at once", engine.name, len(jobs))
        return {}


def _ask_alone(job: Askable, engine: Engine) -> None:
    take = job.begin_question()
    try:
        take(engine.state(job.id or ""))
    except EngineAway as away:
        job.has_no_answer(away)


@contextlib.contextmanager
def _alone(job: Askable) -> Iterator[None]:
    """What fails for one job, such as a look at a full disk, disturbs no other. It is asked about again later."""
    try:
        yield
    except Exception:
        _log.exception("%s cannot be asked about now", job.name)
