"""A place in the queue of a cluster, held before the launch is known: a job whose warden waits for the word to go.

The next launch takes it, wherever in the queue it is; or it is given up, and nothing of it is left.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Self

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.channel import Channel, Go, Hold, Said, Sent
from pipeline.launchers.engine import Engine, EngineAway, portable
from pipeline.launchers.remote_job import Carer, RemoteJob, job_name


class HeldPlace(RemoteJob):
    """The job that holds a place, and is that of the launch once this has taken it.

    Args:
        folder: where its warden waits.
    """

    def __init__(self, launcher: Carer, folder: Path, nonce: str) -> None:
        super().__init__(launcher, Channel(folder), nonce, held=folder)
        self._given_up = False
        self._files = threading.Lock()
        """Of the folder: what is removed is not written again."""

    @classmethod
    def beside(cls, attempt: AttemptFolder, launcher: Carer, *, own: bool) -> Self:
        """A place that is held while this attempt is at work; `own`: for the project's own trainer."""
        nonce = secrets.token_hex(8)
        folder = attempt.make_place(nonce)
        hold = Hold(
            nonce=nonce,
            inherited=portable(os.environ),
            working=str(Path.cwd()),
            lease_seconds=launcher.patience.hold,
            warms_up=own,
        )
        Channel(folder).say(hold)
        place = cls(launcher, folder, nonce)
        place.renew()
        return place

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
        self.leave_place()
        self.due = 0.0
        self._launcher.hurry()

    def leave_place(self) -> None:
        with self._files:
            super().leave_place()

    def ask(self) -> None:
        if not self._given_up:
            super().ask()
            return
        self.due = time.monotonic() + self._launcher.patience.engine
        self._ask_to(self._drop)

    @property
    def may_be_asked_about(self) -> bool:
        return not self._given_up and super().may_be_asked_about

    def _say(self, word: Said) -> None:
        with self._files:
            if not self._given_up:
                super()._say(word)

    def _drop(self) -> None:
        """Has the engine end the job that holds it. Raises EngineAway."""
        with self._lock:
            job = self.id
        if job is None and self.away_since is not None:
            job = self._launcher.engine.find(self.name)
        if job is not None:
            self._launcher.engine.cancel(job)
        self.leave_place()  # it may have begun to print there while the folder was removed
        self._launcher.forget(self)


def end_place(folder: Path, engine: Engine) -> None:
    """Ends what holds the place with this folder, whose orchestrator is gone."""
    channel = Channel(folder)
    hold = channel.read(Hold)
    sent = None if hold is None else channel.heard(Sent, hold.nonce)
    shutil.rmtree(folder, ignore_errors=True)  # first: without it, a warden that the engine starts ends at once
    if hold is not None:
        with contextlib.suppress(EngineAway):
            job = sent.id if sent is not None else engine.find(job_name(hold.nonce))
            if job is not None:
                engine.cancel(job)
