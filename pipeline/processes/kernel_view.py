"""What the kernel shows of this process to those who look at it from outside: its command line and its environment."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Literal

from pipeline.secrets import learn, without_passwords


def overwrite(what: Literal["arg", "env"], content: bytes) -> None:
    """Writes content to where the kernel looks for a process's arguments or environment, cut to the room there.

    Fields 48 – 51 of `/proc/PID/stat` are arg_start, arg_end, env_start and env_end: proc(5).
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = (int(each) for each in (fields[45:47] if what == "arg" else fields[47:49]))
        if 0 < start < end:
            ctypes.memmove(start, content[: end - start - 1].ljust(end - start, b"\0"), end - start)


def hide_command_line() -> None:
    """Has `ps` show this process's command line without passwords, such as that of `tracking.uri=…`."""
    with contextlib.suppress(OSError):
        words = [os.fsdecode(word) for word in Path("/proc/self/cmdline").read_bytes().split(b"\0")]
        for word in words:
            learn(word)
        if (shown := [without_passwords(word) for word in words]) != words:
            overwrite("arg", b"\0".join(map(os.fsencode, shown)))
