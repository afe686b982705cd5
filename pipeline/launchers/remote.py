"""The launcher of a cluster: a warden on a node starts the trainer, and the attempt's folder is the channel.

An engine submits, tells the state, cancels and finds jobs (:mod:`pipeline.launchers.engine`); all else is here. Two
threads of the launcher renew the leases and ask the engine, so an engine that does not answer holds up nothing. Where
the engine can do that, one question is for all jobs of the process (:mod:`pipeline.launchers.together`). What the
trainer did is told by `exit.json` first; the engine says what the trainer cannot know: preempted, its node lost, out
of memory, cancelled by a person.

A place in the queue can be held before the launch is known: a job whose warden waits for the word to go. The next
launch takes it, wherever in the queue it is; or it is given up, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.attempt.file import ATTEMPT_VARIABLE
from pipeline.attempt.folder import AttemptFolder
from pipeline.errors import InfrastructureFailure
from pipeline.launchers.channel import Channel, Ended, Go, Hold, Launch, Lease, Sent, Started, Stop
from pipeline.launchers.engine import SUSPENDED, Engine, EngineAway, Refused, State, portable, warden_command
from pipeline.launchers.exit import Exit
from pipeline.launchers.together import together_in

ENGINE_SECONDS, FOLDER_SECONDS = 10.0, 0.5
"""Between two questions to the engine about a job, and between two looks at its folder."""
_RENEW_SECONDS = 10.0
"""Longest time between two renewals of a lease; a short lease is renewed four times in its length."""
_LATE_SECONDS = 20.0
"""Files of a node may be seen so late here. For so long, a job that has ended may still say how."""
_CERTAIN = 2
"""Answers in a row that are believed when they say that a job which had begun waits again."""
_AWAY_SECONDS = 1800.0
"""An engine that does not answer for so long takes no job any more."""
_FINAL_SECONDS = 60.0
"""For so long, an engine is waited for to say why a trainer was ended by a signal."""
_STOP_SECONDS = 10.0
"""So much later than it happens, this process may see that a trainer which was asked to end has ended."""
_DROPPED_SECONDS = 3.0
"""For so long, an engine has time to drop a job that waits and was cancelled."""
_KILL_SECONDS, _CANCELLED_SECONDS = 5.0, 60.0
"""For so long, a warden has time to kill; and then the engine, which may wait itself (Slurm's KillWait)."""

_HOLD_SECONDS = 60.0
"""For so long, a place is held for an orchestrator that gives no sign."""

_UNKNOWN = "unknown"
"""In place of the id of a job that the engine does not know."""
_SIGNALLED = "it got a signal, as engines send before a time limit"

_log = logging.getLogger("ladder")


@dataclass(frozen=True)
class Patience:
    """The times above, which tests shorten."""

    engine: float = ENGINE_SECONDS
    folder: float = FOLDER_SECONDS
    late: float = _LATE_SECONDS
    away: float = _AWAY_SECONDS
    final: float = _FINAL_SECONDS
    hold: float = _HOLD_SECONDS


class RemoteJob:
    """A trainer on a node, or on its way there."""

    def __init__(
        self,
        launcher: RemoteLauncher,
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
        self._given_up = False
        self._files = threading.Lock()
        """Of the place's folder: what is removed is not written again."""
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
        why = f" ({state.why})" if state is not None and state.why else ""
        return f"{'suspended' if self._has_started else 'queued'}, {self._job}{why}"

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
                until = time.monotonic() + _CANCELLED_SECONDS
                while (
                    self.wait(self._launcher.patience.folder) is None
                    and time.monotonic() < until
                    and self.id is not None
                ):
                    pass
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
        self._leave_place()
        self._launcher.forget(self)

    # A place that is held

    @property
    def is_held(self) -> bool:
        """Whether the place can be taken."""
        open_here = self._refused is None and not self._given_up and not self._has_ended
        return open_here and self._channel.is_held(self.nonce)

    def take(self, channel: Channel) -> None:
        """The place is that of the launch in this channel from now on. Raises OSError."""
        with self._lock:
            place, self._channel = self._channel, channel
            self.log = AttemptFolder(channel.folder).log
            self.renew()
            if self.id is not None:
                channel.say(Sent(nonce=self.nonce, engine=self._launcher.engine.name, id=self.id))
            with contextlib.suppress(FileNotFoundError):  # it was given up at this moment, and the engine will say so
                place.say(Go(nonce=self.nonce, folder=str(channel.folder)))

    def give_up(self) -> None:
        """The place is not wanted any more. Returns at once; the engine is told by the launcher's thread."""
        self._given_up = True
        self._leave_place()
        self.due = 0.0
        self._launcher.hurry()

    def _leave_place(self) -> None:
        if self._held is not None:
            with self._files:
                shutil.rmtree(self._held, ignore_errors=True)

    def _drop(self) -> None:
        with self._lock:
            job = self.id
        if job is None and self.away_since is not None:
            job = self._launcher.engine.find(self.name)
        if job is not None:
            self._launcher.engine.cancel(job)
        self._launcher.forget(self)

    def renew(self) -> None:
        """Renews the lease."""
        self._renewals += 1
        with contextlib.suppress(OSError), self._files:
            if not self._given_up:
                self._channel.say(Lease(nonce=self.nonce, count=self._renewals))

    def ask(self) -> None:
        """Submits it if need be, and asks the engine for its state."""
        self.due = time.monotonic() + self._launcher.patience.engine
        if not self._given_up and self.id is not None:
            if not self._has_ended:
                self._launcher.together.ask(self, self._launcher.engine)
            return
        try:
            if self._given_up:
                self._drop()
            else:
                self._submit()
            self.away_since = None
        except EngineAway as away:
            self.has_no_answer(away)

    @property
    def may_be_asked_about(self) -> bool:
        """Whether another job that asks may ask for this one too."""
        return self.is_open and self.id is not None and not self._given_up and not self._has_ended

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
        away_for = now - self.away_since
        if self.id is None and away_for > self._launcher.patience.away and not self._has_started:
            what = "not told whether it has this job" if self._attached else "taken no job"
            self._refused = f"{self._launcher.engine.name} has {what} for {away_for:.0f} s: {away}"

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
            with self._files:
                if not self._given_up:
                    self._channel.say(Sent(nonce=self.nonce, engine=engine.name, id=self.id))

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
            return self._exit_of(ended)
        state, started = self.state, self._has_started
        if state is None or self.id is None:
            return Exit.of(-self._asked, self.log, 0) if self._asked and self.id is None else None
        dropped = self._cancelled_at is not None and time.monotonic() - self._cancelled_at > _DROPPED_SECONDS
        if self._asked and dropped and not started and state.phase == "queued":
            # Ray drops a job that waits only when it has a place for it. Without its launch, that does nothing there.
            self._channel.withdraw(self.nonce)
            return Exit.of(-self._asked, self.log, 0)
        if self._queued_again >= _CERTAIN:
            return replace(self._silent(), taken=f"{self._job} was queued again by the engine")
        if state.phase != "ended" or self._ended_since is None:
            return None
        late = self._launcher.patience.late if started or state.end not in ("cancelled", "taken") else 0.0
        if self._asked:
            late = min(late, 1.0)
        return self._exit_by(state) if time.monotonic() - self._ended_since >= late else None

    def _exit_of(self, ended: Ended) -> Exit | None:
        """The exit that the warden tells, with what only the engine knows; None: the engine is to be heard first."""
        if ended.refused is not None:
            return Exit(code=ended.code, refused=ended.refused)
        found = Exit.of(ended.code, self.log, int(ended.killed_for_memory))
        if ended.by == "lease" and not self._asked:
            return replace(found, taken="its orchestrator was silent for longer than launcher.lease_seconds")
        if self._asked or ended.says_all:
            return found
        now = time.monotonic()
        self._told_since = self._told_since or now
        state = self.state
        known = state is not None and state.phase == "ended"
        # What the engine said before it ended says nothing of why it did.
        settled = known or (state is not None and state.phase == "queued" and self._heard_at > self._told_since)
        if not settled and now - self._told_since < self._launcher.patience.final:
            self.due = min(self.due, now + min(1.0, self._launcher.patience.engine))
            return None
        end = state.end if state is not None and known else "unknown"
        if end == "cancelled":
            return replace(found, cancelled=self._cancelled(state))
        if end == "taken" or ended.by == "signal":
            why = state.why if state is not None and end == "taken" else _SIGNALLED
            return replace(found, taken=f"{self._job}: {why}")
        return replace(found, killed_for_memory=found.killed_for_memory or end == "out_of_memory")

    def _exit_by(self, state: State) -> Exit:
        """The exit of a job whose warden says nothing: the engine's word is all there is."""
        found = self._silent(state.code)
        if self._asked:
            return Exit.of(-self._asked, self.log, 0)
        if self._held is not None and not self._has_started and state.end in ("done", "failed"):
            return replace(found, taken=f"{self._job} had given up the place that it held")
        if state.end == "cancelled":
            return replace(found, cancelled=self._cancelled(state))
        if state.end == "out_of_memory":
            return replace(found, code=-signal.SIGKILL, killed_for_memory=True)
        if state.end == "taken":
            return replace(found, taken=f"{self._job}: {state.why}")
        if state.end == "unknown":
            return replace(found, taken=f"{self._job} is not known any more, and has not said how it ended")
        return found

    def _silent(self, code: int = -signal.SIGKILL) -> Exit:
        """An exit of which the node has said nothing. Before the trainer has begun, the engine's own output tells."""
        log = self.log if self._has_started else self._channel.engine_log
        return Exit.of(code or -signal.SIGKILL, log, 0)

    def _cancelled(self, state: State | None) -> str:
        why = f" ({state.why})" if state is not None and state.why not in ("", "cancelled", "stopped") else ""
        return f"{self._job} was cancelled{why}"

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


class RemoteLauncher:
    """Starts trainers as jobs of an engine.

    Args:
        lease_seconds: after so long without a sign of this process, a trainer is ended in order. 0: never.
        grace_seconds: between SIGTERM and SIGKILL, where the engine or the lease ends a trainer.
    """

    def __init__(
        self, engine: Engine, lease_seconds: float, grace_seconds: float, patience: Patience | None = None
    ) -> None:
        self.engine, self.patience = engine, patience or Patience()
        self._lease, self._grace = lease_seconds, grace_seconds
        self._jobs: list[RemoteJob] = []
        self.together = together_in(engine)
        """The jobs for which one question is asked: this launcher's, and those of others in the same engine."""
        self._place: RemoteJob | None = None
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._hurry = threading.Event()

    def warm_up(self) -> None:
        """Nothing can be prepared: the node is not known yet."""

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> RemoteJob:
        folder.mkdir(parents=True, exist_ok=True)
        channel = Channel(folder.resolve())
        place, self._place = self._place, None
        if place is not None and not place.is_held:
            place.give_up()
            place = None
        nonce = secrets.token_hex(8) if place is None else place.nonce
        log = AttemptFolder(channel.folder).log
        log.touch()
        channel.clear()
        launch = Launch(
            nonce=nonce,
            command=tuple(command),
            inherited=portable(os.environ),
            given={ATTEMPT_VARIABLE: str(folder), **environment},
            working=str(Path.cwd()),
            lease_seconds=self._lease,
            grace_seconds=self._grace,
            held="" if place is None else str(place.held),
        )
        job = place or RemoteJob(self, channel, nonce)
        try:
            channel.say(launch)
            if place is not None:
                place.take(channel)
                return place
            job.renew()
            job.ask()
        except OSError:  # it may have been submitted
            job.kill()
            raise
        self._care_for(job)
        return job

    def hold_place(self, attempt: AttemptFolder, *, own: bool) -> str | None:
        if self._place is None:
            nonce = secrets.token_hex(8)
            folder = attempt.make_place(nonce)
            channel = Channel(folder)
            hold = Hold(
                nonce=nonce,
                inherited=portable(os.environ),
                working=str(Path.cwd()),
                lease_seconds=self.patience.hold,
                warms_up=own,
            )
            channel.say(hold)
            self._place = RemoteJob(self, channel, nonce, held=folder)
            self._place.renew()
            self._care_for(self._place)
        return self._place.name if self._place.is_held else None

    def give_up_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.give_up()

    def end_place(self, folder: Path) -> None:
        channel = Channel(folder)
        hold = channel.read(Hold)
        sent = None if hold is None else channel.heard(Sent, hold.nonce)
        shutil.rmtree(folder, ignore_errors=True)  # first: without it, a warden that the engine starts ends at once
        if hold is not None:
            with contextlib.suppress(EngineAway):
                job = sent.id if sent is not None else self.engine.find(job_name(hold.nonce))
                if job is not None:
                    self.engine.cancel(job)

    def attach(self, attempt: Path) -> RemoteJob | None:
        channel = Channel(attempt.parent.resolve())
        launch = channel.read(Launch)
        if launch is None:
            return None
        sent = channel.heard(Sent, launch.nonce)
        if self._is_of_another(sent) or (sent is None and self.remains(attempt) == "nothing"):
            return None  # or it was never submitted
        held = Path(launch.held) if launch.held else None
        if held is not None and channel.heard(Started, launch.nonce) is None and held.is_dir():
            with contextlib.suppress(OSError):  # it may wait for the word, which its orchestrator had no time to give
                Channel(held).say(Go(nonce=launch.nonce, folder=str(channel.folder)))
        job = RemoteJob(self, channel, launch.nonce, None if sent is None else sent.id, attached=True, held=held)
        job.renew()
        job.ask()
        self._care_for(job)
        return job

    def remains(self, attempt: Path) -> Literal["nothing", "ended", "alive"]:
        channel = Channel(attempt.parent.resolve())
        launch = channel.read(Launch)
        if launch is None:
            return "nothing"
        sent, ended = channel.heard(Sent, launch.nonce), channel.heard(Ended, launch.nonce)
        if self._is_of_another(sent):
            return "nothing"
        if ended is not None and ended.says_all:
            return "ended"
        try:
            job = sent.id if sent is not None else self.engine.find(job_name(launch.nonce))
            if job is None:
                return "nothing" if channel.heard(Started, launch.nonce) is None else "ended"
            return "ended" if self.engine.state(job).phase == "ended" else "alive"
        except EngineAway:
            return "alive"  # as far as can be known

    def _is_of_another(self, sent: Sent | None) -> bool:
        """Whether the job is another engine's, of which this one knows nothing."""
        return sent is not None and sent.engine != self.engine.name

    def how_it_ended(self, attempt: Path) -> Exit | None:
        job = self.attach(attempt)
        if job is None:
            return None
        seconds = self.patience.final + self.patience.late  # so long, what has ended needs at most to say how
        try:
            if (ended := job.wait(seconds)) is None:
                raise InfrastructureFailure(
                    f"{job.unsettled}, so how a trainer has ended is not known: {attempt.parent}"
                )
            return ended
        finally:
            self.forget(job)

    def end_remains(self, attempt: Path) -> int:
        job = self.attach(attempt)
        if job is None:
            return 0
        lived = job.wait(0) is None
        job.kill()
        return int(lived)

    def close(self) -> None:
        for job in list(self._jobs):
            job.kill()
        self._closed.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def let_go(self) -> None:
        """Leaves the jobs to whoever attaches to them. Nothing of this process cares for them any more."""
        for job in list(self._jobs):
            self.forget(job)
        self.close()

    def forget(self, job: RemoteJob) -> None:
        """A job is gone, and needs no care any more."""
        with contextlib.suppress(ValueError):
            self._jobs.remove(job)
        self.together.leave(job)

    def hurry(self) -> None:
        """Has the engine asked at once about jobs that are due."""
        self._hurry.set()

    def _care_for(self, job: RemoteJob) -> None:
        self._jobs.append(job)
        self.together.join(job)
        if not self._threads or self._closed.is_set():
            self._closed.clear()
            self._threads = [self._thread(self._renew), self._thread(self._ask)]

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"{self.engine.name} {work.__name__}", daemon=True)
        thread.start()
        return thread

    def _renew(self) -> None:
        every = min(_RENEW_SECONDS, self.patience.hold / 4, self._lease / 4 if self._lease > 0 else math.inf)
        while not self._closed.wait(every):
            for job in list(self._jobs):
                if job.is_open:
                    job.renew()

    def _ask(self) -> None:
        while not self._closed.is_set():
            for job in list(self._jobs):
                if job.is_open and time.monotonic() >= job.due and not self._closed.is_set():
                    try:
                        job.ask()
                    except Exception:  # such as a full disk: the other jobs are cared for, and this one again later
                        _log.exception("%s cannot be asked about now", job.name)
            self._hurry.wait(0.2)
            self._hurry.clear()
