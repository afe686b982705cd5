"""The process that runs an experiment, and whether it is still alive.

An orchestrator says who it is in the tag `ladder.owner` of its parent run, gives signs of life in `ladder.alive`, and
holds a lock on a file under the tracking root for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

LIFE_SIGN_SECONDS = 30.0
"""The time between two signs of life."""
_SILENT_SECONDS = 24 * 3600.0
"""An owner on another machine counts as gone after so long without a sign of life. A laptop may sleep for a night."""


class Owner(BaseModel):
    """A process on any machine. The kernel uses a process id again, but never with the same start on the same boot."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    boot: str
    """The id of the machine's boot. It changes when the machine restarts."""
    pid_namespace: str
    """The namespace in which the process id is valid. A container has one of its own."""
    pid: int
    started: int
    """The clock ticks from the boot to the start of the process. A clock that is set does not change them."""
    root: str
    """The folder to which it writes everything."""

    @staticmethod
    def here(root: Path) -> Owner:
        """Returns this process."""
        return Owner(
            host=socket.gethostname(),
            boot=_boot(),
            pid_namespace=_pid_namespace(),
            pid=os.getpid(),
            started=_started(os.getpid()) or 0,
            root=str(root),
        )

    @staticmethod
    def read(text: str) -> Owner | None:
        """Returns the owner that the text describes, or None if it describes none."""
        with contextlib.suppress(ValidationError):
            return Owner.model_validate_json(text)
        return None

    def state(self, last_sign: float | None) -> Literal["alive", "gone", "unknown"]:
        """Returns what this machine knows of it. `last_sign`: its last sign of life, in seconds since 1970."""
        if self.host == socket.gethostname() and self.boot == _boot():
            if self.pid_namespace == _pid_namespace():
                return "alive" if _started(self.pid) == self.started else "gone"
        elif self.host == socket.gethostname() and last_sign is not None and last_sign < _booted():
            return "gone"  # nothing outlives a restart
        if last_sign is not None and time.time() - last_sign > _SILENT_SECONDS:
            return "gone"
        return "unknown"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def life_sign() -> str:
    """Returns the value of `ladder.alive` for now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Held(Exception):
    """Another process has the lock. The message names it, if it is known."""


class Lock:
    """A lock that admits one orchestrator to an experiment. The kernel releases it when the process ends."""

    def __init__(self, path: Path, owner: Owner) -> None:
        """Takes the lock, and writes the owner to its file.

        Raises:
            Held: a living process has it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        while True:
            self._file = path.open("a+", encoding="utf-8")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._file.seek(0)
                holder = Owner.read(self._file.read())
                self._file.close()
                raise Held(str(holder or "another process")) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                    break
            self._file.close()  # it was removed between opening and locking
        self._file.truncate(0)
        self._file.write(owner.model_dump_json())
        self._file.flush()

    def release(self) -> None:
        """Releases the lock and removes its file."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""


def _booted() -> float:
    """Returns when this machine was started, in seconds since 1970."""
    with contextlib.suppress(OSError, ValueError):
        return time.time() - float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return 0.0


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> int | None:
    """Returns the clock ticks from the boot to a process's start; None if there is no process, or only a zombie."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
