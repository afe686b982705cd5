"""How a trainer's process ended, as its launcher saw it: exit code, signal, memory, disk, last words."""

from __future__ import annotations

import contextlib
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.attempt.file import EXIT_DISK_FULL, EXIT_INTERRUPTED, EXIT_KILLED, EXIT_OUT_OF_MEMORY
from pipeline.launchers.last_words import LastWords
from pipeline.processes.streams import plain
from pipeline.secrets import without_passwords

LOG_LIMIT = 2**20
"""The bytes of a trainer's log that the store keeps. The attempt's folder keeps more: see `pipeline.launchers.log`."""
_LINES, _BYTES = 1500, 2**17
"""Of the end of a log, in which the cause of an exit is looked for."""
_DISK_FULL = ("No space left on device", "Disk quota exceeded")
_IN_ORDER = (0, EXIT_INTERRUPTED, 128 + signal.SIGTERM, -signal.SIGTERM)
_NO_ROOM = 2**16
"""The free bytes below which a disk counts as full."""


@dataclass(frozen=True)
class Exit:
    """The end of a process."""

    code: int
    """The exit code; negative: killed by that signal."""
    said: LastWords = LastWords(())
    """The end of its log."""
    killed_for_memory: bool = False
    """Whether the kernel has killed it because memory ran out."""
    disk_full: bool = False
    """Whether it could not write a file because the disk was full."""
    taken: str | None = None
    """Why an engine has taken it away, such as `preempted`; None: it has not."""
    cancelled: str | None = None
    """How a person has cancelled it in the engine; None: nobody has."""
    refused: str | None = None
    """Why it could not be started at all; None: it was started."""

    @classmethod
    def of(cls, code: int, log: Path, kernel_kills: int) -> Exit:
        """Returns the end of a process, with what its log says.

        Args:
            kernel_kills: by how much :func:`kernel_kills` has risen while it ran.
        """
        said = LastWords(tuple(tail_of(log, _LINES, _BYTES)))
        return cls(
            code=code,
            said=said,
            killed_for_memory=code in (-signal.SIGKILL, EXIT_KILLED) and kernel_kills > 0,
            disk_full=_ran_into_full_disk(code, log, said),
        )

    @property
    def out_of_memory(self) -> bool:
        """Whether it ran out of memory, by its exit code, its last words, or the kernel's counter."""
        return self.killed_for_memory or self.code == EXIT_OUT_OF_MEMORY or (self.code != 0 and self.said.of_memory)

    @property
    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the log, up to the error's where there is one."""
        return self.said.tail()

    @property
    def in_order(self) -> bool:
        """Whether it has ended by itself without an error, also because it was asked to."""
        return self.code in _IN_ORDER

    @property
    def was_killed(self) -> bool:
        """Whether another process, or a person, has ended it; a program's own error raises other signals."""
        number = -self.code if self.code < 0 else self.code - 128
        return number in (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)

    @property
    def by_itself(self) -> bool:
        """Whether an error of the program has ended it: neither a person, nor the want of memory or of a disk."""
        return self.code != 0 and not self.disk_full and not self.was_killed and not self.out_of_memory

    @property
    def detail(self) -> dict[str, Any]:
        """The evidence, by name."""
        how: dict[str, Any] = {"signal": signal_name(-self.code)} if self.code < 0 else {"exit code": self.code}
        if self.killed_for_memory:
            how["by"] = "the kernel, for want of memory (oom_kill has risen)"
        if self.disk_full:
            how["disk"] = "full: a file could not be written; the checkpoints before it stand"
        return how


def _ran_into_full_disk(code: int, log: Path, said: LastWords) -> bool:
    """Returns whether the exit code (errno's ENOSPC) or the last words say so, or the disk has no room for words."""
    told = any(words in line for line in said.essential[-3:] for words in _DISK_FULL)
    if code in (0, EXIT_DISK_FULL) or told:
        return code != 0
    with contextlib.suppress(OSError):  # its folder has been removed
        return shutil.disk_usage(log.parent).free < _NO_ROOM
    return False


def kernel_kills() -> int:
    """Returns how many processes the kernel has killed for memory, in this process's cgroup and on the machine."""
    counts = [_counter(Path("/proc/vmstat"), "oom_kill")]
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            version_2, version_1 = Path("/sys/fs/cgroup" + path), Path("/sys/fs/cgroup/memory" + path)
            counts += [
                _counter(version_2 / "memory.events", "oom_kill"),
                _counter(version_1 / "memory.oom_control", "oom_kill"),
            ]
    return sum(counts)


def _counter(path: Path, name: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[0] == name), 0)


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").splitlines()
    return []


def signal_name(number: int) -> str:
    """Returns the name of a signal, such as SIGKILL."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def tail_of(log: Path, lines: int = 20, size: int = 8192) -> list[str]:
    """Returns the last lines of a log that may be long."""
    return end_of(log, size).splitlines()[-lines:]


def end_of(log: Path, size: int = LOG_LIMIT) -> str:
    """Returns the last bytes of a log as text that may be shown: without passwords and control characters."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size))
        return plain(without_passwords(file.read().decode(errors="replace")))
    return ""
