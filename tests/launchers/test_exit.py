"""What the end of a trainer's process says, when no rule has fired."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from pipeline.attempt.file import EXIT_DISK_FULL, EXIT_KILLED, EXIT_OUT_OF_MEMORY
from pipeline.experiment.conclude import verdict_at_exit
from pipeline.launchers.exit import Exit


@pytest.mark.parametrize(
    ("code", "kernel_kills", "verdict"),
    [
        (0, 0, "healthy"),
        (1, 0, "crash"),
        (-signal.SIGSEGV, 1, "crash"),
        (-signal.SIGKILL, 0, "crash"),  # by somebody
        (-signal.SIGKILL, 1, "out_of_memory"),  # by the kernel
        (EXIT_KILLED, 1, "out_of_memory"),  # one of its workers
        (EXIT_KILLED, 0, "crash"),
        (EXIT_OUT_OF_MEMORY, 0, "out_of_memory"),
        (EXIT_DISK_FULL, 0, "crash"),
    ],
)
def test_verdict_at_exit(code: int, kernel_kills: int, verdict: str, tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text("first\nlast words\n")
    found = verdict_at_exit(Exit.of(code, log, kernel_kills), logged=True)
    assert found.name == verdict
    if verdict != "healthy":
        detail = found.evidence[0].detail
        assert detail["last line"] == "last words" and ("disk" in detail) == (code == EXIT_DISK_FULL)


def test_a_trainer_that_has_said_nothing_is_not_healthy(tmp_path: Path) -> None:
    assert verdict_at_exit(Exit.of(0, tmp_path / "none", 0), logged=False).name == "crash"


def test_last_words_tell_of_memory_and_disk(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text("Traceback\nMemoryError\n")
    assert verdict_at_exit(Exit.of(1, log, 0), logged=True).name == "out_of_memory"
    log.write_text("OSError: [Errno 28] No space left on device\n")
    assert "full" in verdict_at_exit(Exit.of(1, log, 0), logged=True).evidence[0].detail["disk"]
