"""The warden: on the node of a cluster, it starts a trainer with the local launcher, and watches over it.

`python -m pipeline.launchers.warden FOLDER NONCE` is what an engine runs. It speaks with the orchestrator through the
attempt's folder (:mod:`pipeline.launchers.channel`). It ends the trainer in order when the orchestrator asks, when the
engine sends a signal (a time limit, preemption, a person's cancellation), or when the lease has run out; and at once
when another launch has taken its place. What the trainer has started is gone before `exit.json` is there.

A warden that holds a place has no launch yet. It imports what the project's own trainer needs, and waits for the word
to go. When the place is given up, when its lease runs out, or when a signal comes, it ends and leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pipeline.launchers.channel import Channel, Ended, Go, Hold, Launch, Lease, Started, Stop
from pipeline.launchers.engine import NODES_OWN
from pipeline.launchers.exit import Exit
from pipeline.launchers.local import LocalJob, LocalLauncher
from pipeline.processes.signals import heeded

_LOOK_SECONDS = 0.2
_STARTED_BEFORE, _REFUSED = 75, 127
"""Exit codes of the warden itself: EX_TEMPFAIL, and what shells have for a command that cannot be found."""
_BY_SIGNAL = 128
_KILL_SECONDS = 30.0
"""After so long, with the grace before, a trainer that was asked to end is killed, whatever its orchestrator does."""


class Warden:
    """Watches over one trainer."""

    def __init__(self, channel: Channel, launch: Launch, asked: threading.Event) -> None:
        self._channel, self._launch, self._asked = channel, launch, asked
        self._by: Literal["asked", "signal", "lease"] | None = None
        self._kill_at: float | None = None
        self._lease: Lease | None = None
        self._renewed = time.monotonic()

    def run(self, launcher: LocalLauncher) -> int:
        """Starts the trainer and returns when it is gone: its exit code, as a shell has it."""
        launch, channel = self._launch, self._channel
        try:
            with _scratch(launch.given.get("TMPDIR")) as changed:
                job = launcher.launch(launch.command, {**launch.given, **changed}, channel.folder)
                try:
                    ended = self._watch(job)
                finally:
                    job.kill()
        except (OSError, ValueError) as error:
            self._tell(Ended(nonce=launch.nonce, code=_REFUSED, refused=str(error)))
            return _REFUSED
        if ended is None:
            return _STARTED_BEFORE
        self._tell(Ended(nonce=launch.nonce, code=ended.code, killed_for_memory=ended.killed_for_memory, by=self._by))
        return ended.code if ended.code >= 0 else _BY_SIGNAL - ended.code

    def _tell(self, ended: Ended) -> None:
        if self._channel.is_current(self._launch.nonce):
            self._channel.say(ended)

    def _watch(self, job: LocalJob) -> Exit | None:
        """How the trainer has ended; None: another launch has taken this one's place."""
        nonce = self._launch.nonce
        while (ended := job.wait(_LOOK_SECONDS)) is None:
            if not self._channel.is_current(nonce):
                print("another launch has taken this one's place, or its folder is gone: the trainer is ended")
                return None
            stop = self._channel.heard(Stop, nonce)
            if stop is not None and stop.how == "kill":
                self._by = self._by or "asked"
                job.kill()
            elif self._by is None and (why := self._why_to_end(stop)) is not None:
                print(f"the trainer is asked to end: {why}")
                self._by = why
                patience = self._launch.grace_seconds + (_KILL_SECONDS if why == "asked" else 0.0)
                self._kill_at = time.monotonic() + patience
                job.terminate()
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                job.kill()
        return ended

    def _why_to_end(self, stop: Stop | None) -> Literal["asked", "signal", "lease"] | None:
        if stop is not None:
            return "asked"
        if self._asked.is_set():
            return "signal"
        lease = self._channel.heard(Lease, self._launch.nonce)
        if lease is not None and lease != self._lease:
            self._lease, self._renewed = lease, time.monotonic()
        out = 0 < self._launch.lease_seconds < time.monotonic() - self._renewed
        return "lease" if out else None


@contextlib.contextmanager
def _scratch(wanted: str | None) -> Iterator[dict[str, str]]:
    """The folder for temporary files on this node: the one that was given, which is made here if it is not there."""
    if wanted is None or Path(wanted).is_dir():
        yield {}
        return
    try:
        Path(wanted).mkdir(mode=0o700)
        made = Path(wanted)
    except OSError:  # the submitter's place for such files is not one of this node
        made = Path(tempfile.mkdtemp(prefix="ladder-"))
    try:
        yield {"TMPDIR": str(made)}
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _node() -> str:
    """The name under which the engine, or else the network, knows this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def boot() -> str:
    """The id of this machine's boot."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def _await_go(channel: Channel, hold: Hold, launcher: LocalLauncher, asked: threading.Event) -> Channel | None:
    """Holds a place; returns the channel of the launch that takes it, or None: it is given up."""
    lease, renewed = None, time.monotonic()
    try:
        while not asked.is_set():
            if (go := channel.heard(Go, hold.nonce)) is not None:
                _print_to(Channel(Path(go.folder)))
                return Channel(Path(go.folder))
            if not channel.is_held(hold.nonce):
                print("the place is given up")
                return None
            now = channel.heard(Lease, hold.nonce)
            if now is not None and now != lease:
                lease, renewed = now, time.monotonic()
            if time.monotonic() - renewed > hold.lease_seconds:
                print("nobody renews the lease of this place: it is given up")
                return None
            if hold.warms_up:
                launcher.warm_up()
            asked.wait(_LOOK_SECONDS)
        return None
    finally:
        shutil.rmtree(channel.folder, ignore_errors=True)


def _print_to(channel: Channel) -> None:
    """What this process prints from now on is with what the engine prints of that launch."""
    with contextlib.suppress(OSError), channel.engine_log.open("ab") as log:
        sys.stdout.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _move_in(inherited: Mapping[str, str], nodes_own: Mapping[str, str], working: str) -> None:
    """Takes over the orchestrator's environment and working folder. Raises OSError."""
    os.environ.clear()
    os.environ.update({**inherited, **nodes_own})
    os.chdir(working)


def main(folder: str, nonce: str) -> int:
    """Runs the trainer of this launch; the exit code is the trainer's. 0 where a place was held in vain."""
    asked = threading.Event()
    nodes_own = {name: value for name, value in os.environ.items() if name.startswith(NODES_OWN)}
    with heeded(asked), contextlib.closing(LocalLauncher()) as launcher:
        channel = Channel(Path(folder))
        if (hold := channel.heard(Hold, nonce)) is not None:
            with contextlib.suppress(OSError):  # the launch tells
                _move_in(hold.inherited, nodes_own, hold.working)
            found = _await_go(channel, hold, launcher, asked)
            if found is None:
                return 0
            channel = found
        launch = channel.heard(Launch, nonce)
        if launch is None:
            print(f"{channel.folder}: another launch has taken this one's place, or was withdrawn")
            return _STARTED_BEFORE
        if channel.heard(Started, nonce) is not None:  # the orchestrator alone restarts
            print(f"{channel.folder}: the engine has started this launch once more; it is left alone")
            return _STARTED_BEFORE
        channel.say(Started(nonce=nonce, host=_node(), boot=boot(), at=time.time()))
        try:
            _move_in(launch.inherited, nodes_own, launch.working)
        except OSError as error:
            channel.say(Ended(nonce=nonce, code=_REFUSED, refused=f"the working folder is not on this node: {error}"))
            return _REFUSED
        return Warden(channel, launch, asked).run(launcher)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
