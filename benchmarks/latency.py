"""How long nothing is trained: before the first attempt, and between a trainer's death and the next attempt.

`python -m benchmarks.latency [--starts N] [--restarts N]`

*Start*: from the start of `ladder run` in an empty folder until the trainer plays its first step. *Restart*: from a
SIGKILL of the trainer until the next attempt plays its first step, from its last checkpoint. Both are read off the
trainer's log. *Memory*: what the zygote, from which trainers are forked, has for itself and shares, while one trains.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import median, write

EXPERIMENT = Path(__file__).parent.parent / "experiments" / "quickstart.yaml"
_BEGUN = re.compile(r"^(\S+ \S+),(\d+) trainer: training begins", re.MULTILINE)
_LONGEST_SECONDS = 120.0


@contextmanager
def ladder_run(root: Path, *words: str) -> Iterator[float]:
    """`ladder run` with more overrides, until the block ends; gives the time at which it was started."""
    command = [sys.executable, "-P", "-m", "pipeline", "run", str(EXPERIMENT), f"tracking.root={root}", *words]
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def beginnings(root: Path) -> list[float]:
    """When each attempt has begun to play, in seconds since 1970."""
    found = [
        match
        for log in root.glob("attempts/*/trainer.log")
        for match in _BEGUN.findall(log.read_text(encoding="utf-8"))
    ]
    return sorted(datetime.fromisoformat(day).timestamp() + int(millis) / 1000 for day, millis in found)


def next_beginning(root: Path, since: float) -> float:
    """Seconds from `since` until an attempt has begun to play."""
    until = time.monotonic() + _LONGEST_SECONDS
    while time.monotonic() < until:
        if later := [at for at in beginnings(root) if at > since]:
            return later[0] - since
        time.sleep(0.05)
    raise TimeoutError(f"no attempt began to play within {_LONGEST_SECONDS:g} s")


def trainers(root: Path) -> list[psutil.Process]:
    """The trainer first, then its workers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LADDER_ATTEMPT", "").startswith(str(root)) and process.cpu_times().user > 0:
                found.append(process)
        except psutil.Error:
            continue
    parents = {process.pid: process.ppid() for process in found}
    return sorted(found, key=lambda process: parents[process.pid] in parents)


def memory(root: Path) -> dict[str, float]:
    """Megabytes of the zygote: for itself, and in all (also what it shares with the trainer)."""
    for process in psutil.process_iter():
        words = process.cmdline() if process.is_running() else []
        if "pipeline.processes.zygote_process" in words and trainers(root)[0].ppid() == process.pid:
            told = process.memory_full_info()
            return {"own": told.uss / 2**20, "proportional": told.pss / 2**20, "resident": told.rss / 2**20}
    return {}


def measure(starts: int, restarts: int) -> dict[str, Any]:
    begun, again, kept = [], [], []
    for _ in range(starts):
        with tempfile.TemporaryDirectory(prefix="latency-") as name, ladder_run(Path(name)) as began:
            begun.append(next_beginning(Path(name), began))
    with tempfile.TemporaryDirectory(prefix="latency-") as name:
        root, words = Path(name), ("budget.retries=1000", "budget.attempts=2000", "training.episodes=100000")
        with ladder_run(root, *words, "training.checkpoint_every_episodes=10") as began:
            next_beginning(root, began)
            for _ in range(restarts):
                time.sleep(8)  # a few updates, a checkpoint
                kept.append(memory(root))
                victim, struck = trainers(root)[0], time.time()
                victim.kill()
                again.append(next_beginning(root, struck))
    return {"start_seconds": begun, "restart_seconds": again, "zygote_megabytes": kept[-1] if kept else {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=20)
    asked = parser.parse_args()
    found = measure(asked.starts, asked.restarts)
    for name in ("start_seconds", "restart_seconds"):
        if figures := found[name]:
            middle, low, high = median(figures)
            print(f"{name}: median {middle:.2f} [{low:.2f}, {high:.2f}] of {len(figures)}, at most {max(figures):.2f}")
            found[name.replace("seconds", "median")] = [middle, low, high]
    print("zygote, MB:", {name: round(value) for name, value in found["zygote_megabytes"].items()})
    print(f"written to {write('latency', found)}")


if __name__ == "__main__":
    main()
