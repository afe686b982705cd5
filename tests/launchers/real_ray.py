"""Jobs of a real Ray. :mod:`tests.launchers.test_real_ray` runs these tests where there is one."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from pipeline.attempt.file import ATTEMPT_VARIABLE
from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.patience import Patience
from pipeline.launchers.ray import Ray
from pipeline.launchers.remote import RemoteLauncher
from pipeline.launchers.remote_job import RemoteJob
from pipeline.processes.guardian import processes_of
from tests.launchers.conformance import ANSWERS, PAUSE, ended, until_said
from tests.processes.maker import eventually

ADDRESS = os.environ["RAY_DASHBOARD"]
QUICK = Patience(engine=0.5, folder=0.02, late=2.0)


@pytest.fixture(scope="module")
def launcher() -> Iterator[RemoteLauncher]:
    with contextlib.closing(
        RemoteLauncher(Ray(ADDRESS, {"entrypoint_num_cpus": 0.1}, 8.0), 60, 8.0, QUICK)
    ) as launcher:
        yield launcher


def start(launcher: RemoteLauncher, source: str, folder: Path) -> RemoteJob:
    variables = {ATTEMPT_VARIABLE: str(AttemptFolder(folder).file)}
    return launcher.launch([sys.executable, "-c", source], variables, folder)


def remains(folder: Path) -> list[int]:
    return list(processes_of(f"{ATTEMPT_VARIABLE}={AttemptFolder(folder).file}"))


def test_exit_code_and_what_it_prints(launcher: RemoteLauncher, tmp_path: Path) -> None:
    assert "answers" in launcher.engine.test()
    job = start(launcher, "print('last words'); raise SystemExit(3)", tmp_path)
    assert ended(job).code == 3 and job.log.read_text() == "last words\n"


def test_a_person_stops_one_that_takes_six_seconds_to_end(launcher: RemoteLauncher, tmp_path: Path) -> None:
    saves = ANSWERS.format(then="import time; time.sleep(6); print('saved', flush=True); sys.exit(130)")
    job = start(launcher, saves, tmp_path)
    until_said(job, "ready")
    requests.post(f"{ADDRESS}/api/jobs/{job.id}/stop", timeout=20)
    assert ended(job).cancelled is not None and "saved" in job.log.read_text()


def test_a_job_whose_supervisor_dies_counts_as_taken_away(launcher: RemoteLauncher, tmp_path: Path) -> None:
    job = start(launcher, PAUSE, tmp_path)
    until_said(job, "ready")
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if command.startswith("ray::") and "JobSupervisor" in command:
            process.kill()
    assert ended(job).taken is not None
    job.kill()
    eventually(lambda: not remains(tmp_path))


def test_another_launcher_attaches_and_ends_it(launcher: RemoteLauncher, tmp_path: Path) -> None:
    first = RemoteLauncher(launcher.engine, 60, 8.0, QUICK)
    job = start(first, ANSWERS.format(then="sys.exit(130)"), tmp_path)
    until_said(job, "ready")
    first.let_go()
    attached = launcher.attach(AttemptFolder(tmp_path).file)
    assert attached is not None and attached.id == job.id
    attached.terminate()
    assert ended(attached).code == 130
    attached.kill()


def test_a_place_that_is_held_is_taken_or_given_up(launcher: RemoteLauncher, tmp_path: Path) -> None:
    attempt = AttemptFolder(tmp_path / "attempt")
    attempt.path.mkdir()
    launcher.hold_place(attempt, own=False)
    place = launcher._place
    assert place is not None
    eventually(lambda: place.state is not None and place.state.phase == "running")
    job = start(launcher, "raise SystemExit(3)", tmp_path / "next")
    assert job is place and ended(job).code == 3 and not attempt.places
    launcher.hold_place(attempt, own=False)
    vain = launcher._place
    assert vain is not None
    eventually(lambda: vain.state is not None and vain.state.phase == "running")
    launcher.give_up_place()
    eventually(lambda: launcher.engine.state(vain.name).phase == "ended" and not attempt.places)
