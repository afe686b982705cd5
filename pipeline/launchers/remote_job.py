"""A job of a cluster: a trainer on a node, or on its way there.

It hears of its end from the warden and from the engine. When that is certain is here; what both words together mean is
in :mod:`pipeline.launchers.remote_exit`.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.channel import Channel, Ended, Lease, Said, Sent, Started, Stop
from pipeline.launchers.engine import SUSPENDED, Engine, EngineAway, Refused, State, warden_command
from pipeline.launchers.exit import Exit
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote_exit import exit_by_engine, exit_by_warden, taken
from pipeline.launchers.together import Together

_CERTAIN = 2
"""Answers in a row that are believed when they say that a job which had begun waits again."""
_STOP_SECONDS = 10.0
"""So much later than it happens, this process may see that a trainer which was asked to end has ended."""
_DROPPED_SECONDS = 3.0
"""For so long, an engine has time to drop a job that waits and was cancelled."""
_KILL_SECONDS, _CANCELLED_SECONDS = 5.0, 60.0
"""For so long, a warden has time to kill; and then the engine, which may wait itself (Slurm's KillWait)."""
_UNKNOWN = "unknown"
"""In place of the id of a job that the engine does not know."""


class Carer(Protocol):
    """The launcher of a job, as the job sees it."""

    engine: Engine
    patience: Patience
    together: Together
    """The jobs for which one question is asked."""

    def hurry(self) -> None:
        """Has the engine asked at once about jobs that are due."""

    def forget(self, job: RemoteJob) -> None:
        """A job is gone, and needs no care any more."""


class RemoteJob:
    """A trainer on a node, or on its way there."""

    def __init__(
        self,
        launcher: Carer,
        channel: Channel,
        nonce: str,
        job: str | None = None,
        *,
        attached: bool = False,
        held: Path | None = None,
    ) -> None:
        """`job`: its id, if it is known. `attached`: another process has submitted it, and this one never does.

        `held`: the folder of the place that is held for it, or was.
        """
        self._attached, self._held = attached, held
        self.log = AttemptFolder(channel.folder).log
        self.nonce, self.id = nonce, job
        self._launcher, self._channel = launcher, channel
        self._lock = threading.RLock()
        self.state: State | None = None
        """What the engine said last."""
        self._heard_at = -math.inf
        """When it was asked for that."""
        self.away_since: float | None = None
        self._away = "it is not asked yet"
        self.due = 0.0
        """When the engine is asked next."""
        self.asked_at = -math.inf
        """When a question about it began, or was in vain."""
        self.is_left_out = False
        """The engine did not name it in its last answer about several jobs."""
        self._ended_since: float | None = None
        self._told_since: float | None = None
        self._refused: str | None = None
        self._asked: int | None = None
        """The signal that this process has asked for."""
        self._cancelled_at: float | None = None
        self._started: Started | None = None
        self._exit: Exit | None = None
        self._queued_again = 0
        """How many answers in a row say that it waits, of those asked for after it had begun."""
        self._renewals = 0

    @property
    def name(self) -> str:
        """Under which the engine knows it."""
        return job_name(self.nonce)

    @property
    def held(self) -> Path | None:
        """The folder of the place that is held for it, or was."""
        return self._held

    @property
    def is_open(self) -> bool:
        """Whether the launcher's threads have to care for it."""
        return self._exit is None

    @property
    def _job(self) -> str:
        return f"{self._launcher.engine.name} job {self.id}" if self.id else self._launcher.engine.name

    @property
    def waiting(self) -> str | None:
        state = self.state
        if self._exit is not None or self._channel.heard(Ended, self.nonce) is not None:
            return None
        if self._has_started and not (self._is_suspended or self._queued_again):
            return None
        if self.id is None:
            return f"{self._launcher.engine.name} takes no job now ({self._away}); it is asked again"
        if state is not None and state.phase == "running":
            return f"starting, {self._job}"
        why = f" ({state.why})" if state is not None and state.why else ""
        away = "" if self.away_since is None else f"; {self._launcher.engine.name} does not answer now"
        return f"{'suspended' if self._has_started else 'queued'}, {self._job}{why}{away}"

    @property
    def _is_suspended(self) -> bool:
        return self.state is not None and self.state.phase == "queued" and self.state.why == SUSPENDED

    @property
    def place(self) -> str:
        if not self._has_started:
            return ""
        assert self._started is not None
        return f"{self._started.host}, {self._job}"

    @property
    def late_seconds(self) -> float:
        return _STOP_SECONDS

    @property
    def unsettled(self) -> str:
        """Why it is not known how it has ended, or whether it has."""
        if self.away_since is not None or self.state is None:
            return f"{self._launcher.engine.name} does not answer now ({self._away})"
        return f"{self._job} is {self.state.phase}, {self._launcher.engine.name} says now"

    @property
    def _has_started(self) -> bool:
        if self._started is None:
            self._started = self._channel.heard(Started, self.nonce)
        return self._started is not None

    def wait(self, seconds: float) -> Exit | None:
        until = time.monotonic() + seconds
        while True:
            # A submission has the lock for as long as the engine takes.
            if self._exit is None and self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
                try:
                    self._exit = self._exit or self._look()
                finally:
                    self._lock.release()
            if self._exit is not None or (left := until - time.monotonic()) <= 0:
                return self._exit
            time.sleep(min(left, self._launcher.patience.folder))

    def terminate(self) -> None:
        self._ask_for_end("terminate")
        if self._exit is None and not self._has_started:
            self._cancel()

    def kill(self) -> None:
        if self._exit is None:
            self._ask_for_end("kill")
            if self._has_started:
                self.wait(_KILL_SECONDS)
            if self._exit is None:
                self._cancel()
                self._await_end(_CANCELLED_SECONDS)
            with self._lock:
                self._exit = self._exit or Exit.of(-signal.SIGKILL, self.log, 0)
        elif self._exit.taken is not None and self._channel.heard(Ended, self.nonce) is not None:
            self._cancel()  # an engine may have queued again what it has taken away
        elif self._channel.heard(Ended, self.nonce) is None and not self._has_ended:
            self._ask_for_end("kill")  # such as one that the engine has queued again; its warden may live
            self._cancel()
            until = time.monotonic() + _KILL_SECONDS
            while self._channel.heard(Ended, self.nonce) is None and time.monotonic() < until:
                time.sleep(self._launcher.patience.folder)
        self._channel.withdraw(self.nonce)
        self.leave_place()
        self._launcher.forget(self)

    def _await_end(self, seconds: float) -> None:
        """Waits for the end of a job that is cancelled. An engine that was away then is told when it is back."""
        now = time.monotonic()
        until, again = now + seconds, now + self._launcher.patience.engine
        while self.wait(self._launcher.patience.folder) is None and self.id is not None and now < until:
            now = time.monotonic()
            if self._cancelled_at is None and now > again:
                again = now + self._launcher.patience.engine
                self._cancel()

    def leave_place(self) -> None:
        """Removes the folder of the place that was held for it."""
        if self._held is not None:
            shutil.rmtree(self._held, ignore_errors=True)

    def renew(self) -> None:
        """Renews the lease."""
        self._renewals += 1
        with contextlib.suppress(OSError):
            self._say(Lease(nonce=self.nonce, count=self._renewals))

    def _say(self, word: Said) -> None:
        self._channel.say(word)

    def ask(self) -> None:
        """Submits it if need be, and asks the engine for its state."""
        self.due = time.monotonic() + self._launcher.patience.engine
        if self.id is None:
            self._ask_to(self._submit)
        elif not self._has_ended:
            self._launcher.together.ask(self, self._launcher.engine)

    def _ask_to(self, do: Callable[[], None]) -> None:
        try:
            do()
            self.away_since = None
        except EngineAway as away:
            self.has_no_answer(away)

    @property
    def may_be_asked_about(self) -> bool:
        """Whether another job that asks may ask for this one too."""
        return self.is_open and self.id is not None and not self._has_ended

    @property
    def _has_ended(self) -> bool:
        """Whether the engine has said so."""
        return self.state is not None and self.state.phase == "ended"

    def begin_question(self) -> Callable[[State], None]:
        """Notes that the engine is asked about it now. Returns what takes the answer."""
        asked = self.asked_at = time.monotonic()
        self.due = asked + self._launcher.patience.engine
        had_started = self._has_started  # an answer from before it began says nothing of what it does now

        def hear(state: State) -> None:
            self._hear(state, had_started=had_started)
            self._heard_at, self.away_since, self.is_left_out = asked, None, False

        return hear

    def has_no_answer(self, away: EngineAway) -> None:
        """Notes that the engine did not answer. Whoever has waited for that need not ask once more."""
        now, self._away = time.monotonic(), str(away)
        self.asked_at = now
        self.away_since = self.away_since or now
        if self.id is None and not self._attached and (seconds := self._away_too_long) is not None:
            self._refused = f"{self._launcher.engine.name} has taken no job for {seconds:.0f} s: {away}"

    @property
    def _away_too_long(self) -> float | None:
        """For how many seconds the engine has not answered, if that is longer than it is waited for."""
        seconds = 0.0 if self.away_since is None else time.monotonic() - self.away_since
        return seconds if seconds > self._launcher.patience.away else None

    def _submit(self) -> None:
        """Submits it, unless an answer was lost and it has been submitted."""
        with self._lock:
            if self._asked or self._refused is not None:
                return
            engine, folder = self._launcher.engine, self._channel.folder
            try:
                may_be_there = self._attached or self.away_since is not None
                found = engine.find(self.name) if may_be_there else None
                if found is None and self._attached:
                    self.id = _UNKNOWN
                    self._hear(State("ended", end="unknown"), had_started=self._has_started)
                    return
                self.id = found or engine.submit(
                    self.name, warden_command(folder, self.nonce), folder, self._channel.engine_log
                )
            except Refused as refused:
                self._refused = f"{engine.name} takes no such job: {refused}"
                return
            self.due = 0.0
            self._say(Sent(nonce=self.nonce, engine=engine.name, id=self.id))

    def _hear(self, state: State, *, had_started: bool) -> None:
        self.state = state
        again = had_started and state.phase == "queued" and not self._is_suspended
        self._queued_again = self._queued_again + 1 if again else 0
        if state.phase == "ended" and self._ended_since is None:
            self._ended_since = time.monotonic()

    def _look(self) -> Exit | None:
        """How it has ended; None: it has not, or that is not known yet."""
        if self._refused is not None:
            return Exit(code=1, refused=self._refused)
        if (ended := self._channel.heard(Ended, self.nonce)) is not None:
            return self._told(ended)
        state, started = self.state, self._has_started
        whether = self.id is None and self._attached  # it is not known whether the engine has such a job at all
        if whether and not (started or self._asked) and (seconds := self._away_too_long) is not None:
            away = f"{self._launcher.engine.name} has not answered for {seconds:.0f} s: {self._away}"
            return taken(f"its job had not begun, and {away}", self._silent_log)
        if state is None or self.id is None:
            return Exit.of(-self._asked, self.log, 0) if self._asked and self.id is None else None
        dropped = self._cancelled_at is not None and time.monotonic() - self._cancelled_at > _DROPPED_SECONDS
        if self._asked and dropped and not started and state.phase == "queued":
            # Ray drops a job that waits only when it has a place for it. Without its launch, that does nothing there.
            self._channel.withdraw(self.nonce)
            return Exit.of(-self._asked, self.log, 0)
        if self._queued_again >= _CERTAIN:
            return taken(f"{self._job} was queued again by the engine", self._silent_log)
        if state.phase != "ended" or self._ended_since is None:
            return None
        late = self._launcher.patience.late if started or state.end not in ("cancelled", "taken") else 0.0
        if self._asked:
            late = min(late, 1.0)
        if time.monotonic() - self._ended_since < late:
            return None
        if self._asked:
            return Exit.of(-self._asked, self.log, 0)
        if self._held is not None and not started and state.end in ("done", "failed"):
            return taken(f"{self._job} had given up the place that it held", self._silent_log, state.code)
        return exit_by_engine(state, self._job, self._silent_log)

    @property
    def _silent_log(self) -> Path:
        """What tells of an end that the warden does not: before the trainer has begun, the engine's own output."""
        return self.log if self._has_started else self._channel.engine_log

    def _told(self, ended: Ended) -> Exit | None:
        """The exit that the warden tells, with what only the engine knows; None: the engine is to be heard first."""
        if not (self._asked or ended.says_all):
            now = time.monotonic()
            self._told_since = self._told_since or now
            # What the engine said before it ended says nothing of why it did.
            queued = self.state is not None and self.state.phase == "queued" and self._heard_at > self._told_since
            if not (self._has_ended or queued) and now - self._told_since < self._launcher.patience.final:
                self.due = min(self.due, now + min(1.0, self._launcher.patience.engine))
                return None
        state = self.state if self._has_ended else None
        return exit_by_warden(ended, state, self._job, self.log, asked=self._asked is not None)

    def _ask_for_end(self, how: Literal["terminate", "kill"]) -> None:
        self._asked = signal.SIGTERM if how == "terminate" else signal.SIGKILL
        with contextlib.suppress(OSError):
            self._channel.say(Stop(nonce=self.nonce, how=how))

    def _cancel(self) -> None:
        with self._lock:
            job = self.id
        if job is None:
            return
        with contextlib.suppress(EngineAway):
            self._launcher.engine.cancel(job)
            self._cancelled_at = self._cancelled_at or time.monotonic()
        self.due = 0.0
        self._launcher.hurry()


def job_name(nonce: str) -> str:
    """The name under which an engine knows the job of a launch."""
    return f"ladder-{nonce}"
