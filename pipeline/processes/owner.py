"""The process that runs an experiment, and whether it is still alive.

An orchestrator says who it is in the tag `ladder.owner` of its parent run, gives signs of life in `ladder.alive`, and
holds a lock on a file under the tracking root for as long as it lives. In this order they say whether it is alive: its
process, where that can be seen; the lock, where the file system is one that all who can hold it see; its last sign.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

LIFE_SIGN_SECONDS = 30.0
"""The time between two signs of life."""
_TWO_SIGNS = 2 * LIFE_SIGN_SECONDS
"""After so long without a sign of life, a free lock counts on a file system that may not share locks."""
_LOCAL = frozenset(
    (
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "jfs", "msdos", "nilfs2", "ntfs3"),
        *("overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ubifs", "vfat", "xfs", "zfs"),
    )
)
"""Types of file systems that one kernel has for itself. All who can hold a lock there are seen by this kernel."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
"""What a file system says that has no locks."""
_RETRY_SECONDS = 0.5
"""For as long, a lock that is held is tried again: another process may only be looking at it."""
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

    def state(
        self, last_sign: float | None, lock: Path | None = None, *, private: bool = False
    ) -> Literal["alive", "gone", "unknown"]:
        """Returns what this machine knows of it.

        Args:
            last_sign: its last sign of life, in seconds since 1970. Clocks may differ, so a lock says more.
            lock: the file on which it holds a lock while it lives.
            private: whether nothing outside the lock's tracking root belongs to the experiment, so that a copy of the
                root is an experiment of its own.
        """
        same_boot = self.boot == _boot() and (self.boot != "" or self.host == socket.gethostname())
        if same_boot and self.pid_namespace == _pid_namespace():
            return "alive" if _started(self.pid) == self.started else "gone"
        silent = 0.0 if last_sign is None else time.time() - last_sign  # negative: the clocks differ
        held = None if lock is None else _is_held_by(self, lock, private=private)
        if held:
            return "alive"
        if held is False and ((lock is not None and is_local(lock)) or silent > _TWO_SIGNS):
            return "gone"
        if not same_boot and self.host == socket.gethostname() and last_sign is not None and last_sign < _booted():
            return "gone"  # nothing outlives a restart
        return "gone" if silent > _SILENT_SECONDS else "unknown"

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
        until = time.monotonic() + _RETRY_SECONDS
        while True:
            self._file = path.open("a+", encoding="utf-8")
            try:
                _flock(self._file, fcntl.LOCK_EX)
            except BlockingIOError:
                if time.monotonic() < until:
                    self._file.close()
                    time.sleep(_RETRY_SECONDS / 10)
                    continue
                self._file.seek(0)
                holder = Owner.read(self._file.read())
                self._file.close()
                raise Held(str(holder or "another process")) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                    break
            self._file.close()  # it was removed between opening and locking
        self._file.truncate(0)
        self._file.write(json.dumps({**owner.model_dump(), "inode": os.fstat(self._file.fileno()).st_ino}))
        self._file.flush()

    def release(self, *, keep: bool = False) -> None:
        """Releases the lock and removes its file. `keep`: the file stays, and says that its owner has let go of it."""
        if not keep:
            self._path.unlink(missing_ok=True)
        self._file.close()


def _flock(file: IO[str], how: int) -> bool:
    """Takes a lock without waiting. Returns False where there are none.

    Raises:
        BlockingIOError: it is held.
    """
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _is_held_by(owner: Owner, lock: Path, *, private: bool) -> bool | None:
    """Returns whether a process holds the lock that the owner has taken; None: this lock says nothing about the owner.

    A copy of the file says nothing about the original, unless the copy is `private`.
    """
    with contextlib.suppress(OSError, ValueError), lock.open(encoding="utf-8") as file:
        try:
            if not _flock(file, fcntl.LOCK_SH):
                return None
        except BlockingIOError:
            return True
        text = file.read()
        original = json.loads(text).get("inode") == os.fstat(file.fileno()).st_ino
        return False if Owner.read(text) == owner and (original or private) else None
    return None


def is_local(path: Path) -> bool:
    """Whether no other kernel can have the file system of this path at the same time."""
    return file_system(path) in _LOCAL


def file_system(path: Path) -> str | None:
    """Returns the type of the file system of this path, such as `ext4` or `nfs4`; None: that cannot be found out."""
    with contextlib.suppress(OSError):
        place = path.resolve()
        mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
        if mounts:  # of several that are mounted at one place, the last one is seen
            return str(max(reversed(mounts), key=lambda each: len(Path(each.mountpoint).parts)).fstype)
    return None


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
