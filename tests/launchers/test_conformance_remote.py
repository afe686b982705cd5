"""A launcher of a cluster, with an engine of four functions: all that every launcher promises, and what it adds."""

from __future__ import annotations

import contextlib
import json
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.launchers.conformance")
pytest.register_assert_rewrite("tests.launchers.conformance_remote")

from pipeline.attempt.folder import AttemptFolder  # noqa: E402
from pipeline.errors import InfrastructureFailure  # noqa: E402
from pipeline.launchers.channel import Channel, Ended, Launch, Sent, Started  # noqa: E402
from pipeline.launchers.patience import Patience  # noqa: E402
from pipeline.launchers.remote import RemoteLauncher  # noqa: E402
from pipeline.launchers.remote_job import RemoteJob  # noqa: E402
from tests.launchers.conformance import ANSWERS, AWAIT, PAUSE, ended, until_said  # noqa: E402
from tests.launchers.conformance_remote import RemoteConformance  # noqa: E402
from tests.launchers.fake_engine import FakeEngine  # noqa: E402
from tests.processes.maker import eventually  # noqa: E402

QUICK = Patience(engine=0.1, folder=0.02, late=0.5, away=1.0, final=5.0)


@pytest.fixture(scope="class")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    with contextlib.closing(FakeEngine(tmp_path_factory.mktemp("engine"))) as engine:
        yield engine


@pytest.fixture(scope="class")
def launcher(engine: FakeEngine) -> Iterator[RemoteLauncher]:
    with contextlib.closing(RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)) as launcher:
        yield launcher


class TestFake(RemoteConformance):
    """Everything but the scheduler."""

    make_source = """
import tempfile
from pathlib import Path
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from tests.launchers.fake_engine import FakeEngine
launcher = RemoteLauncher(FakeEngine(Path(tempfile.mkdtemp())), lease_seconds=1, grace_seconds=1,
                          patience=Patience(engine=0.1, folder=0.02))
"""

    def begun(self, launcher: RemoteLauncher, source: str, folder: Path, **environment: str) -> RemoteJob:
        job = self.start(launcher, source, folder, **environment)
        until_said(job, "ready")
        assert isinstance(job, RemoteJob)
        return job

    def test_it_waits_in_the_queue(self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path) -> None:
        (engine.folder / "hold").touch()
        job = self.start(launcher, "print('ready')", folder)
        eventually(lambda: "held" in (job.waiting or ""))
        assert job.waiting.startswith("queued, fake job") and not job.place and job.wait(0) is None
        (engine.folder / "hold").unlink()
        assert ended(job).code == 0 and job.waiting is None

    def test_one_that_waits_is_gone_after_kill(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        (engine.folder / "hold").touch()
        job = self.start(launcher, "print('ready')", folder)
        job.kill()
        (engine.folder / "hold").unlink()
        assert ended(job).detail == {"signal": "SIGKILL"} and engine.find(job.name) is None
        assert "ready" not in job.log.read_text()

    @pytest.mark.parametrize("kind", ["taken", "cancelled"])
    @pytest.mark.parametrize("queued", [False, True], ids=["running", "queued"])
    def test_taken_away_and_cancelled_are_told_apart(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path, kind: str, queued: bool
    ) -> None:
        if queued:
            (engine.folder / "hold").touch()
            job = self.start(launcher, PAUSE, folder)
            eventually(lambda: "held" in (job.waiting or ""))
        else:
            job = self.begun(launcher, ANSWERS.format(then="sys.exit(0)"), folder)
        (engine.take if kind == "taken" else engine.cancel)(job.id)
        found = ended(job)
        (engine.folder / "hold").unlink(missing_ok=True)
        assert (found.taken is not None, found.cancelled is not None) == (kind == "taken", kind == "cancelled")
        assert f"fake job {job.id}" in (found.taken or found.cancelled)
        job.kill()
        assert not self.remains(folder)

    def test_a_signal_before_the_time_limit_lets_it_end_in_order(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(0)"), folder)
        import os

        os.kill(engine._pid(job.id), signal.SIGUSR1)
        found = ended(job)
        assert found.taken is not None and "heard SIGTERM" in job.log.read_text()

    def test_a_node_that_is_lost_says_nothing(self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path) -> None:
        job = self.begun(launcher, PAUSE, folder)
        engine.lose(job.id)
        assert "it was taken" in (ended(job).taken or "")

    def test_a_job_that_the_engine_has_forgotten_counts_as_taken_away(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        job = self.begun(launcher, PAUSE, folder)
        engine._kill_all(job.id)
        engine.forget(job.id)
        assert "not known any more" in (ended(job).taken or "")

    def test_a_job_that_the_engine_has_queued_again_is_taken_away_and_does_not_run_twice(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        job = self.begun(launcher, PAUSE, folder)
        engine.mark(job.id, "again")
        assert "queued again" in (ended(job).taken or "")
        job.kill()
        assert not self.remains(folder)

    def test_the_engine_knows_of_memory_what_the_trainer_does_not(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        for source, code, out_of_memory in (("raise SystemExit(1)", 1, True), ("", 0, False)):
            gate = folder.parent / f"gate{code}"
            job = self.begun(launcher, f"print('ready', flush=True)\n{AWAIT}\n{source}", folder, GATE=str(gate))
            engine.mark(job.id, "memory")
            gate.touch()
            found = ended(job)
            assert (found.code, found.out_of_memory) == (code, out_of_memory)
            job.log.unlink()

    def test_an_engine_that_is_away_holds_up_nothing(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path, tmp_path: Path
    ) -> None:
        job = self.begun(launcher, "print('ready', flush=True)\n" + AWAIT, folder, GATE=str(tmp_path / "gate"))
        (engine.folder / "away").touch()
        time.sleep(0.3)
        late = self.start(launcher, "print('ready')", tmp_path / "late")
        assert job.waiting is None and "takes no job now (the fake engine is away)" in (late.waiting or "")
        (tmp_path / "gate").touch()
        assert ended(job).code == 0
        (engine.folder / "away").unlink()
        assert ended(late).code == 0

    def test_an_answer_that_was_lost_starts_nothing_twice(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        submit, submitted = engine.submit, []

        def lossy(*words: object) -> str:
            submitted.append(submit(*words))
            if len(submitted) == 1:
                (engine.folder / "away").touch()
                engine.state("none")
            return submitted[-1]

        monkeypatch.setattr(engine, "submit", lossy)
        job = self.start(launcher, PAUSE, folder)
        (engine.folder / "away").unlink()
        until_said(job, "ready")
        eventually(lambda: job.id is not None)
        assert submitted == [job.id]
        job.kill()

    def test_an_engine_that_stays_away_refuses(self, engine: FakeEngine, folder: Path) -> None:
        (engine.folder / "away").touch()
        try:
            with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
                assert "has taken no job" in (ended(self.start(launcher, PAUSE, folder)).refused or "")
        finally:
            (engine.folder / "away").unlink()

    def test_an_engine_that_is_slow_to_take_a_job_does_not_hold_up_who_waits(
        self, engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, answered, submit = threading.Event(), threading.Event(), engine.submit

        def slow(*words: Any) -> str:
            asked.set()
            answered.wait(30)
            return submit(*words)

        (engine.folder / "away").touch()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
            job = self.start(launcher, "raise SystemExit(3)", folder)
            monkeypatch.setattr(engine, "submit", slow)
            (engine.folder / "away").unlink()
            assert asked.wait(10)
            began = time.monotonic()
            assert job.wait(0) is None and job.wait(0.1) is None and time.monotonic() - began < 5
            answered.set()
            assert ended(job).code == 3

    @pytest.mark.parametrize("begun", [True, False], ids=["at work", "not begun"])
    def test_of_a_job_whose_id_is_not_noted_a_long_silence_of_the_engine_says_nothing(
        self, engine: FakeEngine, folder: Path, begun: bool
    ) -> None:
        if not begun:
            (engine.folder / "hold").touch()
        first = RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)
        job = self.start(first, f"print('ready', flush=True)\n{AWAIT}\nraise SystemExit(3)", folder, GATE=f"{folder}/g")
        if begun:
            until_said(job, "ready")
        first.let_go()
        (folder / "job.json").unlink()
        (engine.folder / "away").touch()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
            attached = second.attach(AttemptFolder(folder).file)
            assert attached is not None
            if begun:
                assert attached.wait(2 * QUICK.away) is None
                (folder / "g").touch()
            found = ended(attached)
            attached.kill()
            (engine.folder / "away").unlink()
            (engine.folder / "hold").unlink(missing_ok=True)
        assert found.code == 3 if begun else "its job had not begun, and fake has not answered for" in str(found.taken)
        eventually(lambda: engine.find(job.name) is None)
        assert begun or "ready" not in job.log.read_text()

    def test_a_job_that_waits_keeps_its_place_however_long_the_engine_is_away(
        self, engine: FakeEngine, folder: Path
    ) -> None:
        (engine.folder / "hold").touch()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
            job = self.start(launcher, "print('ready')", folder)
            eventually(lambda: "held" in (job.waiting or ""))
            (engine.folder / "away").touch()
            eventually(lambda: job.waiting == f"queued, fake job {job.id} (held); fake does not answer now")
            assert job.wait(2 * QUICK.away) is None
            (engine.folder / "away").unlink()
            (engine.folder / "hold").unlink()
            assert ended(job).code == 0 and job.log.read_text() == "ready\n"

    def test_an_engine_that_is_away_when_a_job_is_killed_is_told_when_it_is_back(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        (engine.folder / "hold").touch()
        job = self.start(launcher, "print('ready')", folder)
        eventually(lambda: "held" in (job.waiting or ""))
        (engine.folder / "away").touch()
        back = threading.Timer(0.5, (engine.folder / "away").unlink)
        back.start()
        job.kill()
        back.join()
        assert engine.find(job.name) is None and ended(job).detail == {"signal": "SIGKILL"}
        (engine.folder / "hold").unlink()

    def test_how_a_job_ended_that_runs_again_is_not_waited_for_without_end(
        self, engine: FakeEngine, folder: Path
    ) -> None:
        quick = Patience(engine=0.1, folder=0.02, late=0.1, final=0.3)
        with contextlib.closing(RemoteLauncher(engine, 30, 2, quick)) as launcher:
            job = self.begun(launcher, PAUSE, folder)
            with pytest.raises(InfrastructureFailure, match=f"fake job {job.id} is running, fake says now"):
                launcher.how_it_ended(AttemptFolder(folder).file)
            assert job.wait(0) is None

    def test_what_the_engine_refuses_is_told(self, folder: Path, tmp_path: Path) -> None:
        with contextlib.closing(RemoteLauncher(FakeEngine(tmp_path / "e", "no such partition"), 30, 2)) as launcher:
            found = ended(self.start(launcher, PAUSE, folder))
            assert found.refused == "fake takes no such job: no such partition"

    def test_what_is_to_be_started_can_be_read_by_nobody_else(
        self, launcher: RemoteLauncher, engine: FakeEngine, folder: Path
    ) -> None:
        job = self.begun(launcher, PAUSE, folder, PASSWORD="tell-nobody")
        path = folder / "launch.json"
        assert "tell-nobody" in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not [each for each in folder.iterdir() if each != path and b"tell-nobody" in each.read_bytes()]
        job.kill()
        assert not path.exists()

    def test_the_lease_ends_it_in_order_and_the_next_orchestrator_is_told(
        self, engine: FakeEngine, folder: Path
    ) -> None:
        first = RemoteLauncher(engine, lease_seconds=1, grace_seconds=2, patience=QUICK)
        job = self.begun(first, ANSWERS.format(then="sys.exit(130)"), folder)
        time.sleep(2.5)
        assert job.wait(0) is None  # it is renewed
        first.let_go()
        eventually(lambda: Channel(folder).heard(Ended, job.nonce))
        assert "heard SIGTERM" in job.log.read_text() and not self.remains(folder)
        with contextlib.closing(RemoteLauncher(engine, 1, 2, QUICK)) as second:
            attached = second.attach(AttemptFolder(folder).file)
            assert attached is not None and "lease_seconds" in (ended(attached).taken or "")
            attached.kill()

    @pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
    def test_another_launcher_attaches_to_it(self, engine: FakeEngine, folder: Path, noted: bool) -> None:
        first = RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)
        job = self.begun(first, f"print('ready', flush=True)\n{AWAIT}\nraise SystemExit(3)", folder, GATE=f"{folder}/g")
        first.let_go()
        if not noted:
            (folder / "job.json").unlink()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
            attached = second.attach(AttemptFolder(folder).file)
            assert attached is not None and attached.id == job.id and attached.wait(0) is None
            assert attached.waiting is None and attached.place == job.place
            (folder / "g").touch()
            assert ended(attached).code == 3

    def test_a_job_that_the_engine_does_not_know_is_not_submitted_again_by_who_attaches(
        self, engine: FakeEngine, folder: Path
    ) -> None:
        first = RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)
        job = self.begun(first, PAUSE, folder)
        first.let_go()
        engine.lose(job.id)
        engine.forget(job.id)
        (folder / "job.json").unlink()
        before = list(engine.folder.glob("*.json"))
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
            attached = second.attach(AttemptFolder(folder).file)
            assert attached is not None and "not known any more" in (ended(attached).taken or "")
            attached.kill()
        assert list(engine.folder.glob("*.json")) == before

    def test_who_attaches_while_the_engine_is_away_waits_for_it(self, engine: FakeEngine, folder: Path) -> None:
        first = RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)
        job = self.begun(first, f"print('ready', flush=True)\n{AWAIT}\nraise SystemExit(3)", folder, GATE=f"{folder}/g")
        first.let_go()
        (folder / "job.json").unlink()
        (engine.folder / "away").touch()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
            attached = second.attach(AttemptFolder(folder).file)
            assert attached is not None and attached.wait(0.3) is None
            (engine.folder / "away").unlink()
            eventually(lambda: attached.id == job.id)
            (folder / "g").touch()
            assert ended(attached).code == 3

    def test_a_disk_that_is_full_at_the_submission_leaves_no_job(
        self, engine: FakeEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        say = Channel.say

        def full(channel: Channel, word: object) -> None:
            if isinstance(word, Sent):
                raise OSError(28, "No space left on device")
            say(channel, word)

        monkeypatch.setattr(Channel, "say", full)
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
            with pytest.raises(OSError, match="No space left"):
                self.start(launcher, PAUSE, folder)
            assert not self.remains(folder) and not (folder / "launch.json").exists()

    def test_a_second_launch_fences_the_first(self, engine: FakeEngine, folder: Path) -> None:
        first = RemoteLauncher(engine, lease_seconds=30, grace_seconds=2, patience=QUICK)
        self.begun(first, PAUSE, folder)
        old = self.remains(folder)
        first.let_go()
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as second:
            job = self.start(second, AWAIT, folder, GATE=str(folder / "gate"))
            eventually(lambda: not set(old) & set(self.remains(folder)))
            (folder / "gate").touch()
            assert ended(job).code == 0

    def test_what_an_older_launch_says_is_not_believed(self, engine: FakeEngine, folder: Path) -> None:
        with contextlib.closing(RemoteLauncher(engine, 30, 2, QUICK)) as launcher:
            job = self.begun(launcher, PAUSE, folder)
            channel = Channel(folder)
            channel.say(Ended(nonce="older", code=0))
            channel.say(Started(nonce="older", host="elsewhere", boot="", at=0.0))
            assert job.wait(0.2) is None and channel.heard(Ended, job.nonce) is None
            job.kill()
            assert ended(job).detail == {"signal": "SIGKILL"}

    def test_bytes_that_are_no_text_arrive(self, launcher: RemoteLauncher, folder: Path) -> None:
        odd = b"\xff\xfe".decode(errors="surrogateescape")
        self.said(launcher, "import os; assert os.environb[b'ODD'] == b'\\xff\\xfe'", folder, ODD=odd)

    def test_a_working_folder_that_is_not_on_the_node_is_told(
        self,
        launcher: RemoteLauncher,
        engine: FakeEngine,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        (engine.folder / "hold").touch()
        job = self.start(launcher, PAUSE, folder)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here").rmdir()
        (engine.folder / "hold").unlink()
        assert "working folder" in (ended(job).refused or "")

    def test_a_scratch_folder_that_is_not_on_the_node_is_made_there_and_removed(
        self, launcher: RemoteLauncher, folder: Path, tmp_path: Path
    ) -> None:
        source = "import tempfile, os; print(tempfile.gettempdir(), os.path.isdir(tempfile.gettempdir()))"
        wanted = tmp_path / "scratch"
        assert self.said(launcher, source, folder, TMPDIR=str(wanted)) == f"{wanted} True\n" and not wanted.exists()


def test_a_warden_without_a_launch_does_nothing(tmp_path: Path) -> None:
    from pipeline.launchers.warden import main

    assert main(str(tmp_path), "nonce") == 75
    assert not list(tmp_path.iterdir())


def test_files_that_are_half_written_or_of_another_version_say_nothing(tmp_path: Path) -> None:
    channel = Channel(tmp_path)
    for text in ("", "{", "[]", "null", json.dumps({"nonce": "a"}), json.dumps({"other": 1})):
        (tmp_path / "launch.json").write_text(text)
        assert channel.read(Launch) is None and not channel.is_current("a")
    assert channel.read(Sent) is None
