"""The store is locked, away, or gone for good; the disk is full: training goes on if it can, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tracking_server import TrackingServer
from pipeline.attempt.spool import Spool
from tests.end_to_end.conftest import LIGHT, Experiment, evidence
from tests.end_to_end.test_resume import LONG, left_running, whole


@contextlib.contextmanager
def locked(made: Experiment) -> Iterator[None]:
    """Somebody holds the database, and lets nobody write."""
    with contextlib.closing(sqlite3.connect(made.root / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_locked_store(experiment: Any) -> None:
    """For longer than MLflow waits (20 s): training goes on, and every point is there in the end."""
    made = experiment(trainer__command=LIGHT, budget__hang_after_seconds=20.0)
    process = made.start()
    made.wait_for_updates(3, process)
    with locked(made):
        before, began = made.spooled(), time.monotonic()
        while time.monotonic() < began + 30:
            assert process.poll() is None
            time.sleep(0.5)
        assert made.spooled() > before + 30
        kept = made.spooled()
    made.wait_for_updates(kept, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (attempt,) = made.attempts
    assert len(whole(made, attempt)) == attempt.data.metrics["update"] >= kept
    (log,) = (made.root / "experiments").glob("*.log")
    assert "the store is back after" in log.read_text()


def test_stop_while_the_store_is_locked(experiment: Any) -> None:
    """It does not wait for the store, as it does for half an hour otherwise; what could not be said `resume` says."""
    made = experiment(training__episodes=LONG)
    process = made.start()
    made.wait_for_updates(3, process)
    with locked(made):
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 130
        kept = made.spooled()
    assert not made.trainers() and left_running(made)
    process = made.start(made.resume_command())
    made.wait_for_updates(kept + 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (attempt,) = made.attempts
    assert whole(made, attempt)[0] == 64 and not left_running(made)


@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("store", ["server"], indirect=True)
@pytest.mark.parametrize("what", ["server", "database"])
def test_tracking_server_goes_away_and_comes_back(
    what: str, experiment: Any, tracking_server: TrackingServer, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    made = experiment(trainer__command=LIGHT, trainer__parameters={"until": str(done)})
    process = made.start()
    made.wait_for_updates(3, process)
    before = made.spooled()
    if what == "server":
        tracking_server.stop()
        made.wait_for_spooled(before + 5, process)
        time.sleep(5)
        tracking_server.start()
    else:
        tracking_server.database.stop()
        made.wait_for_spooled(before + 5, process)
        tracking_server.database.start()
    done.touch()
    assert process.wait(timeout=120) == 0, process.stdout and process.stdout.read()
    (attempt,) = made.attempts
    assert attempt.info.status == made.parent.info.status == "FINISHED"
    assert whole(made, attempt)[0] == 64
    assert not (made.root / "attempts" / attempt.info.run_id / "metrics.jsonl").exists()  # all of it is delivered


@pytest.mark.xdist_group("server")
@pytest.mark.parametrize("store", ["server"], indirect=True)
def test_tracking_server_goes_away_for_good(experiment: Any, tracking_server: TrackingServer) -> None:
    made = experiment(training__episodes=LONG, ladder__rungs=["v3"], budget__store_away_seconds=4.0)
    process = made.start(stderr=subprocess.PIPE)
    made.wait_for_updates(3, process)
    tracking_server.stop()
    try:
        assert process.wait(timeout=200) == 4
        assert process.stderr is not None
        assert "tracking store" in (said := process.stderr.read()) and len(said.strip().splitlines()) == 1
        assert not made.trainers()
        (folder,) = (made.root / "attempts").glob("*")
        newest = max((folder / "checkpoints").glob("0*.json"))  # ended in order: with a checkpoint
        reports, _ = Spool(folder).read(0)
        assert json.loads(newest.read_text())["step"] == reports[-1].step
    finally:
        tracking_server.start()
    assert left_running(made)
    process = made.start(made.resume_command())
    made.wait_for_updates(round(reports[-1].metrics["update"]) + 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (attempt,) = made.attempts
    assert whole(made, attempt)[0] == 64 and not left_running(made)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 36 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=36m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_disk_full_while_a_checkpoint_is_written(experiment: Any, small_disk: Path) -> None:
    """The store is elsewhere, so it hears of it: the experiment ends in order, and goes on once there is room."""
    made = experiment(training__episodes=200, training__checkpoint_every_episodes=2, training__checkpoints_kept=2)
    made.root = small_disk / "root"
    elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{made.folder / 'elsewhere.db'}"}
    made.server = elsewhere["MLFLOW_TRACKING_URI"]
    with (small_disk / "said").open("w") as said:
        process = made.start(stdout=said, stderr=subprocess.PIPE)
    made.wait_for_updates(6, process)
    filler = small_disk / "filler"
    until = time.monotonic() + 200
    with filler.open("wb", buffering=0) as file:
        while process.poll() is None and time.monotonic() < until:  # old checkpoints that are removed make room again
            with contextlib.suppress(OSError):
                file.write(bytes(2**16))
            time.sleep(0.005)
    assert process.wait(timeout=200) == 4
    assert process.stderr is not None and "the disk is full" in process.stderr.read()
    (attempt,) = made.attempts
    assert attempt.info.status == "FAILED" and attempt.data.tags["ladder.verdict"] == "crash"
    assert (
        evidence(attempt)[0]["detail"]["disk"].startswith("full") and made.parent.data.tags["ladder.outcome"] == "error"
    )
    whole(made, attempt)
    assert not list(small_disk.glob("root/attempts/*/checkpoints/*.tmp"))

    filler.unlink()
    result = made.resume()
    assert result.returncode == 0, result.stdout + result.stderr
    _, resumed = made.attempts
    start = json.loads(resumed.data.tags["ladder.warm_start"])
    assert start["run_id"] == attempt.info.run_id and start["episode"] > 0
    assert "passed over" not in result.stdout
    shutil.rmtree(made.root)


@pytest.mark.parametrize("gone", ["mlflow.db", "attempts", ""], ids=["database", "attempts", "root"])
def test_what_disappears_underneath_ends_the_experiment_with_its_name(gone: str, experiment: Any) -> None:
    """The trainer is ended, the exit code is 4, and no new database is made in place of the old one."""
    made = experiment(trainer__command=LIGHT, ladder__rungs=["v3"])
    process = made.start()
    until = time.monotonic() + 200
    while not list(made.root.glob("attempts/*/metrics.delivered")) and time.monotonic() < until:
        time.sleep(0.1)
    path = made.root / gone
    path.rename(made.folder / "elsewhere")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 4, said
    assert "has been removed while" in said and gone in said and "Traceback" not in said, said
    assert not (made.root / "mlflow.db").exists() or gone == "attempts"
