"""`ladder` in a process of its own, forked from one that has imported everything: a start takes no time.

What a test starts so differs from what a person starts in its first seconds only. Those have tests of their own, which
start `python -m pipeline` itself.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from unittest import mock

from pipeline.launchers import local
from pipeline.processes.zygote import Forked, Zygote

MODULES = (
    "pipeline.commands.run",
    "pipeline.commands.resume",
    "pipeline.commands.status",
    "pipeline.commands.diagnose",
    "pipeline.tuning.tune",
    "pipeline.tuning.worker",
    "pipeline.health.plot",
    *local.PRELOADED,
)


@functools.cache
def _zygote() -> Zygote:
    """One for all tests of this process. It ends with it."""
    with mock.patch.dict(os.environ, {"PYTHONWARNINGS": "ignore"}):
        return Zygote(MODULES, idle_seconds=3600.0)


def close() -> None:
    """Ends what this process has forked from, once no test needs it any more."""
    if _zygote.cache_info().currsize:
        _zygote().close()


class Ladder:
    """A `ladder` command that runs, with the methods of `subprocess.Popen`."""

    def __init__(self, words: list[str], environment: Mapping[str, str], folder: Path, *, stderr: int | None) -> None:
        """`stderr`: subprocess.PIPE for a stream of its own, else it goes where the standard output goes."""
        said = Path(tempfile.mkdtemp(prefix="said-", dir=folder.parent))
        out, err = said / "out", said / "err" if stderr == subprocess.PIPE else None
        for path in (out, err):
            if path is not None:
                path.touch()
        self._forked: Forked = _zygote().run(
            "pipeline", words, environment=environment, output=out, errors=err, folder=folder, first="HOME", nested=True
        )
        self.stdout: IO[str] = out.open()
        self.stderr: IO[str] | None = None if err is None else err.open()

    @property
    def pid(self) -> int:
        return self._forked.pid

    @property
    def returncode(self) -> int | None:
        return self._forked.returncode

    def poll(self) -> int | None:
        return self._forked.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._forked.wait(timeout)

    def send_signal(self, number: int) -> None:
        self._forked.send_signal(number)

    def kill(self) -> None:
        self._forked.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.stdout.read(), "" if self.stderr is None else self.stderr.read()


def start(
    command: list[str], *, cwd: Path, env: Mapping[str, str], stderr: int | None = subprocess.STDOUT
) -> Ladder | subprocess.Popen[str]:
    """Starts `python -m pipeline …` forked, and any other command as it stands. What it says can be read."""
    if command[:3] == [sys.executable, "-m", "pipeline"]:
        return Ladder(command[3:], env, cwd, stderr=stderr)
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)


def complete(
    command: list[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with everything that it said."""
    process = start(command, cwd=cwd, env=env, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(command, _code(process), out, err)


def _code(process: Any) -> int:
    assert process.returncode is not None
    return int(process.returncode)
