"""Places in a queue that are held for a launch that may come: taken, given up, lost, and left by one that died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.channel import Channel, Go, Launch, Sent, Started
from pipeline.launchers.engine import EngineAway
from pipeline.launchers.held_place import HeldPlace
from pipeline.launchers.local import LocalLauncher
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.launchers.remote_job import RemoteJob
from pipeline.processes.guardian import processes_of
from tests.launchers.conformance import ANSWERS, AWAIT, PAUSE, ROOT, ended, until_said
from tests.launchers.fake_engine import FakeEngine
from tests.processes.maker import eventually, lives

QUICK = Patience(engine=0.1, folder=0.02, late=0.5, away=1.0, final=5.0, hold=30.0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with contextlib.closing(FakeEngine(tmp_path / "engine")) as engine:
        yield engine


@pytest.fixture
def launcher(engine: FakeEngine) -> Iterator[RemoteLauncher]:
    with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
        yield launcher


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptFolder:
    """The attempt at work."""
    (tmp_path / "attempt").mkdir()
    return AttemptFolder(tmp_path / "attempt")


def start(launcher: RemoteLauncher, source: str, folder: Path, **environment: str) -> RemoteJob:
    return launcher.launch([sys.executable, "-c", source], environment, folder)


def held(launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, *, starts: bool = True) -> str:
    """The job that holds a place, once the engine has it, or once its warden waits there."""
    if not starts:
        (engine.folder / "hold").touch()
    assert launcher.hold_place(attempt, own=False) is not None
    place = launcher._place
    assert place is not None
    eventually(lambda: place.id is not None and place.state is not None)
    if starts:
        eventually(lambda: engine._has(str(place.id), "running"))
    return str(place.id)


def nothing_is_left(engine: FakeEngine, attempt: AttemptFolder, job: str) -> None:
    eventually(lambda: not engine._lives(job) and not attempt.places)
    eventually(lambda: not processes_of(f"FAKE_JOB={job}"))


@pytest.mark.parametrize("starts", [True, False], ids=["at work", "queued"])
def test_the_next_launch_takes_it_wherever_it_is(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, tmp_path: Path, starts: bool
) -> None:
    place = held(launcher, engine, attempt, starts=starts)
    job = start(
        launcher, f"print('ready', flush=True)\n{AWAIT}\nraise SystemExit(3)", tmp_path / "next", GATE=f"{tmp_path}/g"
    )
    assert job.id == place
    if not starts:
        assert (job.waiting or "").startswith(f"queued, fake job {place}") and job.wait(0) is None
        (engine.folder / "hold").unlink()
    until_said(job, "ready")
    assert job.waiting is None and f"fake job {place}" in job.place and not attempt.places
    (tmp_path / "g").touch()
    assert ended(job).code == 3 and len(list(engine.folder.glob("*.json"))) == 1
    job.kill()
    nothing_is_left(engine, attempt, place)


def test_what_took_a_place_answers_like_any_other(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, tmp_path: Path
) -> None:
    held(launcher, engine, attempt)
    job = start(launcher, ANSWERS.format(then="sys.exit(130)"), tmp_path / "next", TMPDIR="/nowhere/there", ODD="ä\n,b")
    until_said(job, "ready")
    job.terminate()
    assert ended(job).code == 130
    held(launcher, engine, attempt)
    job = start(launcher, "import os; assert os.environ['ODD'] == 'ä\\n,b'", tmp_path / "third", ODD="ä\n,b")
    assert ended(job).code == 0


@pytest.mark.parametrize("starts", [True, False], ids=["at work", "queued"])
@pytest.mark.parametrize("how", ["given up", "closed"])
def test_one_that_is_not_wanted_leaves_nothing(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, starts: bool, how: str
) -> None:
    place = held(launcher, engine, attempt, starts=starts)
    began = time.monotonic()
    launcher.give_up_place() if how == "given up" else launcher.close()
    assert how == "closed" or time.monotonic() - began < 0.5
    assert not attempt.places
    nothing_is_left(engine, attempt, place)


def test_it_is_given_up_at_once_after_it_was_asked_for(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder
) -> None:
    for _ in range(5):
        launcher.hold_place(attempt, own=False)
        launcher.give_up_place()
    launcher.give_up_place()
    eventually(lambda: not launcher._jobs and not attempt.places)
    assert not [path for path in engine.folder.glob("*.json") if engine._lives(path.stem)]


def test_a_job_that_prints_while_its_place_is_given_up_leaves_no_folder(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, cancel = held(launcher, engine, attempt, starts=False), engine.cancel
    (folder,) = attempt.places

    def late(job: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "engine.log").touch()
        cancel(job)

    monkeypatch.setattr(engine, "cancel", late)
    launcher.give_up_place()
    eventually(lambda: not launcher._jobs)
    nothing_is_left(engine, attempt, place)


def test_an_engine_that_is_away_is_told_when_it_is_back(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder
) -> None:
    place = held(launcher, engine, attempt, starts=False)
    (engine.folder / "away").touch()
    launcher.give_up_place()
    time.sleep(0.4)
    assert engine._lives(place) and not attempt.places
    (engine.folder / "away").unlink()
    nothing_is_left(engine, attempt, place)


def test_a_submission_whose_answer_was_lost_is_found_and_ended(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, submitted = engine.submit, []

    def lossy(*words: object) -> str:
        submitted.append(submit(*words))
        raise EngineAway("the answer is lost")

    monkeypatch.setattr(engine, "submit", lossy)
    monkeypatch.setattr(engine, "find", lambda name: (_ for _ in ()).throw(EngineAway("away")))
    launcher.hold_place(attempt, own=False)
    eventually(lambda: submitted)
    launcher.give_up_place()
    monkeypatch.undo()
    nothing_is_left(engine, attempt, submitted[0])


@pytest.mark.parametrize("why", ["cancelled", "taken", "lost"])
def test_a_place_that_was_lost_is_replaced_by_an_ordinary_launch(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, tmp_path: Path, why: str
) -> None:
    place = held(launcher, engine, attempt)
    {"cancelled": engine.cancel, "taken": engine.take, "lost": engine.lose}[why](place)
    eventually(lambda: launcher.hold_place(attempt, own=False) is None)
    job = start(launcher, "raise SystemExit(3)", tmp_path / "next")
    assert job.id != place and ended(job).code == 3
    nothing_is_left(engine, attempt, place)


def test_one_that_is_lost_at_the_moment_it_is_taken_counts_as_taken_away(
    launcher: RemoteLauncher,
    engine: FakeEngine,
    attempt: AttemptFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = held(launcher, engine, attempt)
    monkeypatch.setattr(engine, "state", lambda job: (_ for _ in ()).throw(EngineAway("away")))
    os.kill(engine._pid(place), signal.SIGTERM)
    monkeypatch.setattr(HeldPlace, "is_held", True)
    eventually(lambda: not engine._lives(place))
    job = start(launcher, PAUSE, tmp_path / "next")
    monkeypatch.undo()
    assert "given up the place" in (ended(job).taken or "")


def test_the_engine_is_away_when_a_place_is_asked_for_and_taken(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, tmp_path: Path
) -> None:
    (engine.folder / "away").touch()
    launcher.hold_place(attempt, own=False)
    job = start(launcher, "raise SystemExit(3)", tmp_path / "next")
    assert "takes no job now" in (job.waiting or "")
    (engine.folder / "away").unlink()
    assert ended(job).code == 3
    job.kill()
    assert not attempt.places and len(list(engine.folder.glob("*.json"))) == 1


ORCHESTRATOR = """
import sys, time
from pathlib import Path
from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from tests.launchers.fake_engine import FakeEngine
engine, attempt, hold = sys.argv[1:]
launcher = RemoteLauncher(FakeEngine(Path(engine)), 30, 2, Patience(engine=0.1, folder=0.02, hold=float(hold)))
launcher.hold_place(AttemptFolder(Path(attempt)), own=False)
time.sleep(600)
"""


def killed(engine: FakeEngine, attempt: AttemptFolder, hold: float, *, starts: bool) -> str:
    """The job of a place whose orchestrator has been killed."""
    if not starts:
        (engine.folder / "hold").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", ORCHESTRATOR, str(engine.folder), str(attempt.path), str(hold)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    sent = eventually(lambda: next((said for each in attempt.places if (said := Channel(each).read(Sent))), None))
    if starts:
        eventually(lambda: engine._has(sent.id, "running"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return str(sent.id)


@pytest.mark.parametrize("starts", [True, False], ids=["at work", "queued"])
def test_it_outlives_its_orchestrator_by_its_lease_at_most(
    engine: FakeEngine, attempt: AttemptFolder, starts: bool
) -> None:
    place = killed(engine, attempt, 1.0, starts=starts)
    (engine.folder / "hold").unlink(missing_ok=True)
    nothing_is_left(engine, attempt, place)


@pytest.mark.parametrize("starts", [True, False], ids=["at work", "queued"])
def test_whoever_goes_on_ends_it(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, starts: bool
) -> None:
    place = killed(engine, attempt, 600.0, starts=starts)
    for each in attempt.places:
        launcher.end_place(each)
    nothing_is_left(engine, attempt, place)


def test_who_attaches_gives_the_word_that_was_not_given(
    engine: FakeEngine, attempt: AttemptFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RemoteLauncher(engine, 30, 2, QUICK)
    place = held(first, engine, attempt)
    say = Channel.say
    monkeypatch.setattr(Channel, "say", lambda channel, word: None if isinstance(word, Go) else say(channel, word))
    start(first, "raise SystemExit(3)", tmp_path / "next")
    monkeypatch.undo()
    first.let_go()
    with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
        attached = second.attach(AttemptFolder(tmp_path / "next").file)
        assert attached is not None and attached.id == place and ended(attached).code == 3
        attached.kill()
    nothing_is_left(engine, attempt, place)


def test_the_environment_of_a_place_can_be_read_by_nobody_else(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "tell-nobody")
    held(launcher, engine, attempt, starts=False)
    (place,) = attempt.places
    assert place.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in place.iterdir() if b"tell-nobody" in each.read_bytes()] == ["hold.json"]
    assert (place / "hold.json").stat().st_mode & 0o777 == 0o600


def test_the_projects_own_trainer_is_imported_meanwhile(
    launcher: RemoteLauncher, engine: FakeEngine, attempt: AttemptFolder
) -> None:
    launcher.hold_place(attempt, own=True)
    (zygote,) = eventually(lambda: _zygotes(attempt))
    launcher.give_up_place()
    eventually(lambda: not attempt.places and not lives(zygote))


def _zygotes(attempt: AttemptFolder) -> list[int]:
    """Those of the warden that holds a place here."""
    wardens = [
        each for each in psutil.process_iter(["cmdline"]) if f"{attempt.path}/" in " ".join(each.info["cmdline"] or ())
    ]
    found = []
    with contextlib.suppress(psutil.Error):
        for child in (child for each in wardens for child in each.children(recursive=True)):
            if "pipeline.processes.zygote_process" in child.cmdline():
                found.append(child.pid)
    return list(dict.fromkeys(found))


def test_a_launch_of_another_version_is_understood(tmp_path: Path) -> None:
    (tmp_path / "launch.json").write_text(
        '{"nonce": "a", "command": [], "inherited": {}, "given": {}, "working": "/", "lease_seconds": 1, '
        '"grace_seconds": 1}'
    )
    launch = Channel(tmp_path).read(Launch)
    assert launch is not None and launch.held == "" and Channel(tmp_path).read(Started) is None


def test_on_this_machine_nothing_is_held(attempt: AttemptFolder) -> None:
    with contextlib.closing(LocalLauncher()) as launcher:
        assert launcher.hold_place(attempt, own=False) is None
        launcher.give_up_place()
        assert not attempt.places
