"""Who runs an experiment, and whether he is still alive.

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
"""Between two signs of life."""
_SILENT_SECONDS = 24 * 3600.0
"""Without a sign of life for so long, somebody on another machine counts as gone. A laptop may sleep for a night."""


class Owner(BaseModel):
    """A process, anywhere. A process id is used again; with the time of its start, on a boot, it is not."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    boot: str
    """Of the machine's present boot: another one means that it was restarted."""
    pid_namespace: str
    """Process ids mean something only within it (a container has one of its own)."""
    pid: int
    started: int
    """Clock ticks between the boot and its start: no clock that jumps changes it."""
    root: str
    """The folder of everything that it writes."""

    @staticmethod
    def here(root: Path) -> Owner:
        """This process."""
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
        with contextlib.suppress(ValidationError):
            return Owner.model_validate_json(text)
        return None

    def state(self, last_sign: float | None) -> Literal["alive", "gone", "unknown"]:
        """What is known of it from here, given the time (seconds since 1970) of its last sign of life."""
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
    """What `ladder.alive` says now."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Held(Exception):
    """Somebody else has the lock; says who, as far as it is known."""


class Lock:
    """At most one orchestrator per experiment. The kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path, owner: Owner) -> None:
        """Takes the lock, on a file that says whose it is.

        Raises:
            Held: somebody alive has it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        while True:
            self._file = path.open("a+")
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
            self._file.close()  # it was released, and removed, between our opening and our locking
        self._file.truncate(0)
        self._file.write(owner.model_dump_json())
        self._file.flush()

    def release(self) -> None:
        """Leaves no file behind."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _booted() -> float:
    """When this machine was started, in seconds since 1970."""
    with contextlib.suppress(OSError, ValueError):
        return time.time() - float(Path("/proc/uptime").read_text().split()[0])
    return 0.0


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _started(pid: int) -> int | None:
    """Clock ticks between the boot and a process's start; None if there is none, or nothing but its exit code."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
