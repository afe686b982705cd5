"""The channel between an orchestrator and a trainer's warden: small files in the attempt's folder, on a shared disk.

    launch.json    what is to be started; it may hold passwords, so its mode is 0600
    job.json       which job of the engine that is
    started.json   the warden has begun, and where
    lease          changes as long as the orchestrator lives
    stop           the orchestrator asks for the trainer's end
    exit.json      how the trainer has ended

A place in the queue that is held for the next attempt has a folder of its own, with two more:

    hold.json      a warden waits here; it may hold passwords, so its mode is 0600
    go.json        it begins, with the launch in the folder that this names

Each has the nonce of its launch, so what an older launch says is not believed. A warden whose nonce is no longer that
of `launch.json` ends its trainer and says nothing: another one has taken its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.folder import EXIT

_NAMES = ("launch.json", "job.json", "started.json", "lease", "stop", EXIT, "engine.log")


@dataclass(frozen=True)
class Said:
    """What one of the files says. Its content is JSON, in which Python's `json` keeps bytes that are no UTF-8."""

    nonce: str


Word = TypeVar("Word", bound=Said)


@dataclass(frozen=True)
class Launch(Said):
    """What is to be started."""

    command: Sequence[str]
    inherited: Mapping[str, str]
    """The environment of the orchestrator."""
    given: Mapping[str, str]
    """What the trainer finds in its environment beside that."""
    working: str
    """The working folder."""
    lease_seconds: float
    """After so long without a change of the lease, the trainer is ended in order. 0: never."""
    grace_seconds: float
    """Between SIGTERM and SIGKILL."""
    held: str = ""
    """The folder of the place that was held for it, where its warden begins; empty: there was none."""


@dataclass(frozen=True)
class Hold(Said):
    """A place is held for a launch that may come."""

    inherited: Mapping[str, str]
    """The environment of the orchestrator."""
    working: str
    """The working folder."""
    lease_seconds: float
    """After so long without a change of the lease, the place is given up."""
    warms_up: bool
    """Whether the project's own trainer comes, whose modules can be imported meanwhile."""


@dataclass(frozen=True)
class Go(Said):
    """The launch has come."""

    folder: str
    """Where it is."""


@dataclass(frozen=True)
class Sent(Said):
    """The job of the engine."""

    engine: str
    id: str


@dataclass(frozen=True)
class Started(Said):
    """The warden has begun."""

    host: str
    boot: str
    """The id of the machine's boot."""
    at: float
    """Seconds since 1970, by the node's clock."""


@dataclass(frozen=True)
class Lease(Said):
    """Each renewal has another count."""

    count: int


@dataclass(frozen=True)
class Stop(Said):
    """The orchestrator asks for the end."""

    how: Literal["terminate", "kill"]


@dataclass(frozen=True)
class Ended(Said):
    """How the trainer has ended."""

    code: int
    """Negative: killed by that signal."""
    killed_for_memory: bool = False
    by: Literal["asked", "signal", "lease"] | None = None
    """What the warden ended it for: the orchestrator asked, the engine or a person sent a signal, or the lease ran out.
    None: it ended by itself."""
    refused: str | None = None
    """Why it could not be started."""

    @property
    def says_all(self) -> bool:
        """Whether the engine knows nothing that matters beside it."""
        return self.refused is not None or self.by in ("asked", "lease") or (self.code == 0 and self.by is None)


class Channel:
    """The files of one attempt's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def engine_log(self) -> Path:
        """What the warden, or the engine, prints."""
        return self.folder / "engine.log"

    def read(self, kind: type[Word]) -> Word | None:
        """What the newest launch, or an older one, has said; None: nothing, or nothing that can be read now."""
        with contextlib.suppress(OSError):
            return _understood(kind, (self.folder / _FILES[kind]).read_text(encoding="utf-8"))
        return None

    def heard(self, kind: type[Word], nonce: str) -> Word | None:
        """What this launch has said."""
        said = self.read(kind)
        return said if said is not None and said.nonce == nonce else None

    def say(self, word: Said) -> None:
        """Replaces the file as a whole. Raises OSError."""
        path = self.folder / _FILES[type(word)]
        (_write_private if isinstance(word, Launch | Hold) else write_atomically)(path, json.dumps(asdict(word)))

    def is_held(self, nonce: str) -> bool:
        """Whether the place with this nonce is still held. A disk that is away for a moment says nothing."""
        try:
            hold = _understood(Hold, (self.folder / _FILES[Hold]).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return hold is not None and hold.nonce == nonce

    def is_current(self, nonce: str) -> bool:
        """Whether no other launch has taken this one's place. A disk that is away for a moment says nothing."""
        try:
            text = (self.folder / _FILES[Launch]).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        except OSError:
            return True
        launch = _understood(Launch, text)
        return launch is not None and launch.nonce == nonce

    def clear(self) -> None:
        """Removes what older launches have said."""
        for name in _NAMES:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()

    def withdraw(self, nonce: str) -> None:
        """Removes `launch.json`, and the passwords in it. A warden of this launch that still lives ends its trainer."""
        if self.heard(Launch, nonce) is not None:
            with contextlib.suppress(OSError):
                (self.folder / _FILES[Launch]).unlink()


_FILES: dict[type[Said], str] = {
    Launch: "launch.json",
    Hold: "hold.json",
    Go: "go.json",
    Sent: "job.json",
    Started: "started.json",
    Lease: "lease",
    Stop: "stop",
    Ended: EXIT,
}


def _understood(kind: type[Word], text: str) -> Word | None:
    """What a text says; None: it says nothing of this kind."""
    with contextlib.suppress(ValueError, TypeError):
        return kind(**json.loads(text))
    return None


def _write_private(path: Path, text: str) -> None:
    """Writes a file as a whole that only this user can read, whatever the umask."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
