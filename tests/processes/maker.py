"""A process that makes zygotes as a test asks it to. It has no threads, so it can have a nested one.

The test has a `Maker`; this file is also its other end, as a program: `python maker.py MODULE …`, which imports the
modules and then reads one call a line (JSON) and answers each with one line.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 200.0
"""It only catches a hang."""


def eventually(condition: Callable[[], Any]) -> Any:
    """What the condition returns as soon as that is true. Fails when this takes longer than any machine needs."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < until, "it has not come to pass"
        time.sleep(0.005)
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and it is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Maker:
    """The test's end."""

    def __init__(self, imported: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )

    def ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, arguments, options]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def zygote(self, modules: Sequence[str], **options: Any) -> ZygoteThere:
        return ZygoteThere(self, self.ask("zygote", modules, **options))

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE_SECONDS)


class ZygoteThere:
    """A `Zygote` in the maker's process."""

    def __init__(self, maker: Maker, number: int) -> None:
        self.maker, self.number = maker, number
        self.pid: int = maker.ask("zygote_pid", number)

    @property
    def alive(self) -> bool:
        return self.maker.ask("alive", self.number)

    def run(self, module: str, arguments: Sequence[str] = (), **options: Any) -> ForkedThere:
        return ForkedThere(self.maker, self.maker.ask("run", self.number, module, arguments, **options))

    def close(self) -> None:
        self.maker.ask("close", self.number)


class ForkedThere:
    """A `Forked` in the maker's process."""

    def __init__(self, maker: Maker, number: int) -> None:
        self.maker, self.number = maker, number

    @property
    def pid(self) -> int:
        return self.maker.ask("pid", self.number)

    def was_forked(self) -> bool:
        return self.maker.ask("was_forked", self.number, PATIENCE_SECONDS)

    def poll(self) -> int | None:
        return self.maker.ask("poll", self.number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int | None:
        """None: it still runs."""
        return self.maker.ask("wait", self.number, seconds)


class _Answers:
    """The maker's process: what it can be asked."""

    def __init__(self) -> None:
        self._zygotes: list[Any] = []
        self._forked: list[Any] = []
        self._held: list[Any] = []

    def zygote(self, modules: list[str], **options: Any) -> int:
        from pipeline.processes.zygote import IDLE_SECONDS, Zygote
        from pipeline.processes.zygote_process import fork_nested

        if all(module in sys.modules for module in modules):
            fork_nested(options.get("idle_seconds", IDLE_SECONDS))
        self._zygotes.append(Zygote(modules, **options))
        return len(self._zygotes) - 1

    def zygote_pid(self, number: int) -> int:
        return self._zygotes[number]._pid

    def alive(self, number: int) -> bool:
        return self._zygotes[number].alive

    def close(self, number: int) -> None:
        self._zygotes[number].close()

    def run(self, number: int, module: str, arguments: list[str], **options: Any) -> int:
        paths = {name: Path(options.pop(name)) for name in ("output", "errors", "folder") if name in options}
        self._forked.append(self._zygotes[number].run(module, arguments, **options, **paths))
        return len(self._forked) - 1

    def pid(self, number: int) -> int:
        return self._forked[number].pid

    def was_forked(self, number: int, within: float) -> bool:
        return self._forked[number].was_forked(within)

    def poll(self, number: int) -> int | None:
        return self._forked[number].poll()

    def wait(self, number: int, seconds: float) -> int | None:
        try:
            return self._forked[number].wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def lock(self, path: str) -> None:
        self._held.append(open(path, "w"))  # noqa: SIM115, PTH123
        fcntl.flock(self._held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)

    def block(self, number: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    def handle(self, number: int) -> None:
        self._held.append(signal.signal(number, lambda *_: None))

    def children(self) -> list[int]:
        return [int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def main() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    answers = _Answers()
    for line in sys.stdin:
        what, arguments, options = json.loads(line)
        try:
            answer = {"value": getattr(answers, what)(*arguments, **options)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
