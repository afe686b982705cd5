"""A launcher whose place is this very process, where torch is loaded already: another engine beside `LocalLauncher`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from pipeline.attempt.file import EXIT_INTERRUPTED
from pipeline.launchers.exit import Exit
from pipeline.training.__main__ import main


@dataclass(frozen=True)
class Ended:
    """A trainer that has come to its end before anybody could watch it."""

    log: Path
    code: int

    def wait(self, seconds: float) -> Exit:
        return Exit.of(self.code, self.log, 0)

    waiting, place, late_seconds = None, "here", 0.0

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class HereLauncher:
    """Returns when the trainer, V3's, has come to its end."""

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    def launch(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ended:
        assert command[-1] == "pipeline.training"
        path, said = folder / "trainer.log", logging.getLogger("trainer")
        theirs = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        log = logging.FileHandler(path)
        said.addHandler(log)
        said.setLevel(logging.INFO)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                code = main()
        finally:
            for number, handler in theirs.items():
                signal.signal(number, handler)
            said.removeHandler(log)
            log.close()
        if code == EXIT_INTERRUPTED:  # these tests were
            raise KeyboardInterrupt
        return Ended(path, code)

    def attach(self, attempt: Path) -> None:
        return None

    def remains(self, attempt: Path) -> Literal["nothing"]:
        return "nothing"

    def end_remains(self, attempt: Path) -> int:
        return 0
