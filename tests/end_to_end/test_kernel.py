"""What the kernel does to processes: it kills them for want of memory, freezes them, and turns their clocks."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Metric

from tests.end_to_end.conftest import LIGHT, Experiment, evidence
from tests.end_to_end.test_resume import LONG, whole

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def little_memory(tmp_path: Path) -> Iterator[Path]:
    """A cgroup in which next to nothing can be allocated any more."""
    version_1 = (CGROUPS / "memory").is_dir()
    group = (CGROUPS / "memory" if version_1 else CGROUPS) / f"ladder-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(2**16))
        swap = group / ("memory.memsw.limit_in_bytes" if version_1 else "memory.swap.max")
        with contextlib.suppress(OSError):
            swap.write_text(str(2**16 if version_1 else 0))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no right to make a memory cgroup: {error}")
    yield group
    for _ in range(50):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)


def test_killed_by_the_kernel_for_want_of_memory(experiment: Any, little_memory: Path) -> None:
    """A worker, whose death the trainer reports; of the trainer's own the orchestrator learns at first hand."""
    made = experiment(training__episodes=150, training__workers=2, ladder__rungs=["v3"])
    process = made.start()
    made.wait_for_spooled(3, process)
    (little_memory / "cgroup.procs").write_text(str(made.worker().pid))
    assert process.wait(timeout=150) == 0, process.stdout and process.stdout.read()
    failed, retried = made.attempts
    assert failed.data.tags["ladder.verdict"] == "out_of_memory" and failed.info.status == "FAILED"
    assert "the kernel" in json.dumps(evidence(failed))
    assert retried.data.params["environment.num_envs"] == "2" and retried.info.status == "FINISHED"


def test_frozen_and_thawed_is_no_hang(experiment: Any) -> None:
    """All of it stopped for longer than a hang takes, as by a laptop that sleeps or a container that is paused."""
    made = experiment(trainer__command=LIGHT, health__poll_seconds=0.2, budget__hang_after_seconds=8.0)
    process = made.start()
    made.wait_for_updates(3, process)
    orchestrator, trainers = psutil.Process(process.pid), made.trainers()
    for each in trainers:
        each.suspend()
    time.sleep(1.5)  # now the orchestrator has seen all that they said
    orchestrator.suspend()
    time.sleep(10)
    orchestrator.resume()  # before them: what it sees is a run that has been silent for longer than a hang takes
    time.sleep(1)
    for each in trainers:
        each.resume()
    (attempt,) = made.attempts
    made.wait_for_updates(round(attempt.data.metrics["update"]) + 3, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (attempt,) = made.attempts
    assert attempt.data.tags["ladder.verdict"] == "interrupted"


JUMPING = """
import os, time
_real, _forward, _back = time.time, *(os.path.join(os.path.dirname(__file__), name) for name in ("forward", "back"))
def _jumped():
    return _real() + (-86400 if os.path.exists(_back) else 3600 if os.path.exists(_forward) else 0)
time.time = _jumped
"""


def test_clock_that_jumps_is_no_hang(experiment: Any) -> None:
    """In all processes alike, an hour forward and a day back."""
    made = experiment(training__episodes=LONG, budget__hang_after_seconds=30.0)
    jumping = made.folder / "jumping"
    jumping.mkdir()
    (jumping / "sitecustomize.py").write_text(JUMPING)
    environment = made.environment
    environment["PYTHONPATH"] = f"{jumping}:{environment['PYTHONPATH']}"
    process = made.start(env=environment, stdout=subprocess.PIPE)  # Python reads that file when it starts
    made.wait_for_updates(3, process)

    def seen() -> list[Metric]:
        return made.client.get_metric_history(made.attempts[0].info.run_id, "update")

    until = time.monotonic() + 200
    for jump, hours in (("forward", 0.9), ("back", 23)):
        (jumping / jump).touch()
        while (times := [point.timestamp for point in seen()]) and max(times) - min(times) < 3600e3 * hours:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (attempt,) = made.attempts
    assert attempt.data.tags["ladder.verdict"] == "interrupted"
    assert {point.step for point in seen()} == {64 * number for number in range(1, len(seen()) + 1)}


def test_stopped_trainer_is_a_hang(experiment: Any, tmp_path: Path) -> None:
    """With a child, which is stopped as well. V3 that hangs in the middle of its training is in test_failures.py."""
    done = tmp_path / "done"
    made = experiment(
        trainer__command=["bash", "-c", f"sleep 1000 & exec {shlex.join(LIGHT)}"],
        trainer__parameters={"until": str(done)},
        health__poll_seconds=0.2,
        budget__hang_after_seconds=8.0,
    )
    process = made.start()
    made.wait_for_updates(3, process)
    stopped = made.trainers()
    assert len(stopped) == 2
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    done.touch()  # the next attempt ends at once
    assert process.wait(timeout=150) == 0, process.stdout and process.stdout.read()
    failed, retried = made.attempts
    assert failed.data.tags["ladder.verdict"] == "hang" and retried.info.status == "FINISHED"
    _, alive = psutil.wait_procs(stopped, timeout=200)  # a zombie, until its parent takes notice
    assert not alive
    whole(made, failed)


def test_nothing_is_open_to_everybody_and_the_log_is_kept(experiment: Any) -> None:
    """Whatever the umask; and a name from YAML is only ever a name."""
    made: Experiment = experiment(
        root_there=False, ladder__rungs=["v3"], experiment__name="$(touch pwned); `touch pwned` ../../x"
    )
    process = made.start(preexec_fn=lambda: os.umask(0))
    assert process.wait(timeout=120) == 0
    everything = [made.root, *made.root.rglob("*")]
    assert not [path for path in everything if path.lstat().st_mode & 0o007 and not path.is_symlink()]
    (attempt,) = made.attempts
    folder = made.root / "attempts" / attempt.info.run_id
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not list(made.folder.rglob("pwned"))
    kept = Path(made.client.download_artifacts(attempt.info.run_id, "trainer.log")).read_text()
    assert "update 3" in kept and kept == (folder / "trainer.log").read_text()
