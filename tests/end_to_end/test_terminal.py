"""A terminal, a pipe, and a locale that knows no Greek."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import Any

from tests.end_to_end.conftest import LIGHT


def on_a_terminal(command: list[str], environment: dict[str, str], folder: str, seconds: float) -> tuple[int, str]:
    """Runs a command on a pseudo-terminal; its exit code and everything that it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env={**environment, "TERM": "xterm"}
    )
    os.close(theirs)
    shown, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.5)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        elif process.poll() is not None:
            break
    return process.wait(timeout=200), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_live_panel_on_a_terminal(experiment: Any) -> None:
    # All of it in warm-up, and polled often: however fast the machine, the panel is seen there.
    made = experiment(
        ladder__rungs=["v3"],
        training__episodes=60,
        phases__warmup_until=1000,
        phases__transition_until=2000,
        health__poll_seconds=0.2,
    )
    environment = made.environment | {"COLUMNS": "120", "LINES": "40"}
    code, shown = on_a_terminal(made.command, environment, str(made.folder), seconds=120)
    assert code == 0, shown
    for expected in ("attempt 0 · v3", "warmup", "ETA", "steps/s", "(random ", "gradient norm", "normal", "healthy"):
        assert expected in shown, expected


def test_nobody_listens(experiment: Any) -> None:
    """Input, output and error are closed: what is opened next must not be taken for them."""
    made = experiment(trainer__command=LIGHT, trainer__parameters={"updates": 3}, ladder__rungs=["v3"])
    closed = ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *made.command]
    assert subprocess.run(closed, cwd=made.folder, env=made.environment, timeout=200).returncode == 0
    assert made.parent.data.tags["ladder.outcome"] == "healthy"


def test_locale_without_greek_letters(experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT, trainer__parameters={"updates": 3}, ladder__rungs=["v3"])
    environment = made.environment | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run(made.command, cwd=made.folder, env=environment, capture_output=True, timeout=200)
    assert result.returncode == 0, result.stderr
    (log,) = (made.root / "experiments").glob("*.log")
    assert "attempt 0: healthy – " in log.read_text(encoding="utf-8")


def test_help_names_the_commands() -> None:
    result = subprocess.run([sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True, check=True)
    assert all(command in result.stdout for command in ("run", "check", "status"))
