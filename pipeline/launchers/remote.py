"""The launcher of a cluster: a warden on a node starts the trainer, and the attempt's folder is the channel.

An engine submits, tells the state, cancels and finds jobs (:mod:`pipeline.launchers.engine`). What one job is, and how
it ends, is in :mod:`pipeline.launchers.remote_job`; one that waits for the next launch in
:mod:`pipeline.launchers.held_place`. Two threads of the launcher renew the leases and ask the engine, so an engine that
does not answer holds up nothing. Where the engine can do that, one question is for all jobs of the process
(:mod:`pipeline.launchers.together`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pipeline.attempt.file import ATTEMPT_VARIABLE
from pipeline.attempt.folder import AttemptFolder
from pipeline.errors import InfrastructureFailure
from pipeline.launchers.channel import Channel, Ended, Go, Launch, Sent, Started
from pipeline.launchers.engine import Engine, EngineAway, portable
from pipeline.launchers.exit import Exit
from pipeline.launchers.held_place import HeldPlace, end_place
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote_job import RemoteJob, job_name
from pipeline.launchers.together import together_in

_RENEW_SECONDS = 10.0
"""Longest time between two renewals of a lease; a short lease is renewed four times in its length."""

_log = logging.getLogger("ladder")


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
        self._place: HeldPlace | None = None
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
            self._place = HeldPlace.beside(attempt, self, own=own)
            self._care_for(self._place)
        return self._place.name if self._place.is_held else None

    def give_up_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.give_up()

    def end_place(self, folder: Path) -> None:
        end_place(folder, self.engine)

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
