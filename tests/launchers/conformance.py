"""What every launcher has to do. The test of a new one gives a fixture `launcher` and inherits the rest:

    @pytest.fixture(scope="class")
    def launcher() -> Iterator[Launcher]:
        with contextlib.closing(MyLauncher()) as launcher:
            yield launcher

    class TestMine(LauncherConformance):
        make_source = "from pipeline.launchers.mine import MyLauncher; launcher = MyLauncher()"

The trainers here are a few lines of Python. Where a launcher needs another command for them, it overrides `command`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.attempt.file import ATTEMPT_VARIABLE, EXIT_OUT_OF_MEMORY
from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.base import Job, Launcher
from pipeline.launchers.exit import Exit
from pipeline.processes.guardian import processes_of
from tests.processes.maker import PATIENCE_SECONDS, eventually, lives

ROOT = Path(__file__).parents[2]
PAUSE = """
import signal
print("ready", flush=True)
while True:
    signal.pause()
"""
AWAIT = """
import os, time
while not os.path.exists(os.environ["GATE"]):
    time.sleep(0.005)
"""
DAEMON = """
import subprocess
print("daemon", subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
"""
HIDDEN = """
import os, subprocess
if os.fork() == 0:
    print("daemon", subprocess.Popen(["/bin/sleep", "600"], env={}, cwd="/", start_new_session=True).pid, flush=True)
    os._exit(0)
os.wait()
"""
"""A daemon that nothing in its process tells of: no environment, no session, no parent."""
ANSWERS = """
import signal, sys
def answer(number, frame):
    print("heard", signal.Signals(number).name, flush=True)
    {then}
signal.signal(signal.SIGTERM, answer)
print("ready\\n", end="", flush=True)  # in one piece: no signal comes before the end of the line
while True:
    signal.pause()
"""


class LauncherConformance:
    """Properties of a launcher, each a test. All tests share the launcher, though some close it."""

    make_source = ""
    """Statements after which `launcher` is one, in a process that is killed."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """The folder of an attempt."""
        return tmp_path / "attempt"

    def command(self, source: str, folder: Path) -> list[str]:
        """The command of a trainer that is this Python program."""
        return [sys.executable, "-c", source]

    def start(self, launcher: Launcher, source: str, folder: Path, **environment: str) -> Job:
        attempt = {ATTEMPT_VARIABLE: str(AttemptFolder(folder).file)}
        return launcher.launch(self.command(source, folder), attempt | environment, folder)

    def said(self, launcher: Launcher, source: str, folder: Path, **environment: str) -> str:
        """What a trainer prints that ends with exit code 0."""
        job = self.start(launcher, source, folder, **environment)
        assert ended(job).code == 0, job.log.read_text()
        return job.log.read_text()

    @pytest.mark.parametrize("code", [0, 1, 130, EXIT_OUT_OF_MEMORY])
    def test_exit_code(self, launcher: Launcher, folder: Path, code: int) -> None:
        found = ended(self.start(launcher, f"import sys; print('last words'); sys.exit({code})", folder))
        assert found.code == code and found.detail == {"exit code": code} and found.log_tail == ("last words",)
        assert found.out_of_memory == (code == EXIT_OUT_OF_MEMORY)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    def test_death_by_a_signal(self, launcher: Launcher, folder: Path, number: signal.Signals) -> None:
        found = ended(self.start(launcher, f"import os; os.kill(os.getpid(), {int(number)})", folder))
        assert found.code == -number and found.detail == {"signal": number.name}

    def test_last_words_tell_of_memory(self, launcher: Launcher, folder: Path) -> None:
        found = ended(self.start(launcher, "raise MemoryError('too much')", folder))
        assert found.code == 1 and found.out_of_memory and "Traceback" in found.log_tail[0]

    def test_wait_returns_none_while_it_runs_and_the_same_afterwards(self, launcher: Launcher, folder: Path) -> None:
        gate = folder.parent / "gate"
        job = self.start(launcher, f"{AWAIT}\nraise SystemExit(3)", folder, GATE=str(gate))
        assert job.wait(0) is None and job.wait(0.01) is None
        gate.touch()
        found = eventually(lambda: job.wait(0))  # without any patience too
        assert found.code == 3 and job.wait(0) == job.wait(PATIENCE_SECONDS) == found
        job.kill()
        assert job.wait(0) == found

    def test_the_log_has_all_that_is_printed_in_its_order(self, launcher: Launcher, folder: Path) -> None:
        source = "import sys; print('out', flush=True); print('error', file=sys.stderr); print('last')"
        assert self.said(launcher, source, folder) == "out\nerror\nlast\n"
        assert self.said(launcher, "print('again')", folder) == "out\nerror\nlast\nagain\n"

    def test_the_environment_arrives_intact(self, launcher: Launcher, folder: Path) -> None:
        given = {"COMMAS": "a,b;c", "LINES": "one\ntwo\n", "EQUALS": "a=b==", "UNICODE": "Übung λ → 走", "EMPTY": ""}
        source = f"import os; assert {given!r}.items() <= os.environ.items(), os.environ; assert 'PATH' in os.environ"
        self.said(launcher, source, folder, **given)

    def test_a_secret_is_in_no_command_line(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder, PASSWORD="tell-nobody")
        until_said(job, "ready")
        assert not [line for line in command_lines() if "tell-nobody" in line]
        job.kill()

    def test_it_has_a_session_and_a_group_of_its_own(self, launcher: Launcher, folder: Path) -> None:
        said = self.said(launcher, "import os; print(os.getpid(), os.getsid(0), os.getpgid(0))", folder)
        process, session, group = map(int, said.split())
        assert process == session == group

    def test_there_is_nothing_to_read(self, launcher: Launcher, folder: Path) -> None:
        assert self.said(launcher, "import sys; print(repr(sys.stdin.read()))", folder) == "''\n"

    def test_tmpdir(self, launcher: Launcher, folder: Path, tmp_path: Path) -> None:
        source = "import tempfile; print(tempfile.gettempdir())"
        assert self.said(launcher, source, folder, TMPDIR=str(tmp_path)) == f"{tmp_path}\n"

    def test_it_works_in_the_launchers_working_folder(
        self, launcher: Launcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        launcher.warm_up()
        monkeypatch.chdir(tmp_path)
        assert self.said(launcher, "import os; print(os.getcwd())", folder) == f"{tmp_path}\n"

    def test_terminate_reaches_its_handler_and_it_ends_in_order(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
        until_said(job, "ready")
        job.terminate()
        assert ended(job).code == 130 and ended(job).log_tail == ("ready", "heard SIGTERM")
        job.terminate()  # too late, and no harm

    def test_terminate_ends_one_that_has_only_just_started(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder)
        job.terminate()
        assert ended(job).detail == {"signal": "SIGTERM"}

    def test_one_that_ignores_terminate_is_gone_after_kill(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, ANSWERS.format(then="pass"), folder)
        until_said(job, "ready")
        job.terminate()
        until_said(job, "heard SIGTERM")
        assert job.wait(0) is None
        job.kill()
        assert not self.remains(folder) and ended(job).detail == {"signal": "SIGKILL"}

    def test_kill_at_once_leaves_nothing(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder)
        job.kill()
        assert not self.remains(folder) and ended(job).detail == {"signal": "SIGKILL"}
        job.kill()

    @pytest.mark.parametrize("daemon", [DAEMON, HIDDEN], ids=["plain", "hidden"])
    @pytest.mark.parametrize("then", [PAUSE, "print('ready')"], ids=["running", "ended"])
    def test_daemons_of_it_are_gone_after_kill(self, launcher: Launcher, folder: Path, then: str, daemon: str) -> None:
        job = self.start(launcher, daemon + then, folder)
        until_said(job, "ready")
        pid = daemon_of(job.log)
        assert lives(pid) or then != PAUSE  # where the trainer has ended, it may be gone already
        job.kill()
        assert not Path(f"/proc/{pid}").exists() if daemon == HIDDEN else not lives(pid)
        assert not self.remains(folder) and ended(job).code in (0, -signal.SIGKILL)

    def test_a_command_that_does_not_exist_is_refused_and_leaves_nothing(
        self, launcher: Launcher, folder: Path
    ) -> None:
        attempt = {ATTEMPT_VARIABLE: str(AttemptFolder(folder).file)}
        refused = self.refusal(lambda: launcher.launch(["no-such-command", "--now"], attempt, folder))
        assert "no-such-command" in refused and not self.remains(folder)
        assert self.said(launcher, "print('done')", folder) == "done\n"

    def test_a_log_that_cannot_be_written_is_refused_and_leaves_nothing(self, launcher: Launcher, folder: Path) -> None:
        AttemptFolder(folder).log.mkdir(parents=True)
        refused = self.refusal(lambda: self.start(launcher, PAUSE, folder))
        assert "trainer.log" in refused and not self.remains(folder)

    def test_end_remains_ends_what_runs_of_an_attempt_and_counts_it(self, launcher: Launcher, tmp_path: Path) -> None:
        jobs = [self.start(launcher, DAEMON + PAUSE, tmp_path / name) for name in ("one", "another")]
        for job in jobs:
            until_said(job, "ready")
        daemons = [daemon_of(job.log) for job in jobs]
        assert launcher.end_remains(AttemptFolder(tmp_path / "one").file) > 0
        assert launcher.end_remains(AttemptFolder(tmp_path / "one").file) == 0
        assert ended(jobs[0]).detail == {"signal": "SIGKILL"} and not lives(daemons[0])
        assert jobs[1].wait(0) is None and lives(daemons[1])
        jobs[1].kill()

    def test_several_run_at_once_and_each_has_its_own_end(self, launcher: Launcher, tmp_path: Path) -> None:
        gates, jobs = [tmp_path / f"gate{number}" for number in range(4)], []
        for number in (0, 1, 2):
            source = f"{AWAIT}\nraise SystemExit({number})"
            jobs.append(self.start(launcher, source, tmp_path / f"attempt{number}", GATE=str(gates[number])))
        gates[1].touch()
        assert ended(jobs[1]).code == 1
        jobs.append(self.start(launcher, f"{AWAIT}\nraise SystemExit(3)", tmp_path / "attempt3", GATE=str(gates[3])))
        for number in (3, 0, 2):
            assert jobs[number].wait(0) is None
            gates[number].touch()
            assert ended(jobs[number]).code == number

    @pytest.mark.parametrize("daemon", [DAEMON, HIDDEN], ids=["plain", "hidden"])
    def test_close_leaves_no_process_and_is_harmless_twice(self, launcher: Launcher, folder: Path, daemon: str) -> None:
        before = set(psutil.Process().children(recursive=True))
        job = self.start(launcher, daemon + PAUSE, folder)
        until_said(job, "ready")
        launcher.close()
        launcher.close()
        eventually(lambda: not self.remains(folder) and not lives(daemon_of(job.log)))
        assert ended(job).detail == {"signal": "SIGKILL"}
        assert set(psutil.Process().children(recursive=True)) <= before

    def test_a_job_is_at_work_somewhere_and_waits_for_nothing(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder)
        until_said(job, "ready")
        assert job.waiting is None and job.place
        job.kill()
        assert job.waiting is None

    def test_an_attempt_without_a_job_has_none_to_attach_to(self, launcher: Launcher, folder: Path) -> None:
        assert launcher.attach(AttemptFolder(folder).file) is None

    def test_after_close_it_launches_again(self, launcher: Launcher, folder: Path) -> None:
        assert self.said(launcher, "print('once')", folder) == "once\n"
        launcher.close()
        assert self.said(launcher, "print('more')", folder) == "once\nmore\n"

    @pytest.mark.parametrize("daemon", [DAEMON, HIDDEN], ids=["plain", "hidden"])
    def test_all_is_gone_soon_after_the_launchers_process_has_been_killed(self, folder: Path, daemon: str) -> None:
        command, attempt = self.command(daemon + PAUSE, folder), {ATTEMPT_VARIABLE: str(AttemptFolder(folder).file)}
        script = f"""
import json, sys, time
from pathlib import Path
{self.make_source}
command, environment, folder = json.loads(sys.argv[1])
job = launcher.launch(command, environment, Path(folder))
while True:
    time.sleep(600)
"""
        log = AttemptFolder(folder).log
        orchestrator = start_python(script, json.dumps([command, attempt, str(folder)]))
        eventually(lambda: orchestrator.poll() is not None or (log.exists() and "ready" in log.read_text()))
        assert self.remains(folder) and lives(daemon_of(log))
        orchestrator.kill()
        orchestrator.wait()
        eventually(lambda: not self.remains(folder) and not lives(daemon_of(log)))

    def refusal(self, launch: Callable[[], Job]) -> str:
        """Why a trainer cannot be started: told at once, or by a job that has ended."""
        try:
            job = launch()
        except OSError as error:
            return str(error)
        refused = ended(job).refused
        assert refused is not None, job.log
        job.kill()
        return refused

    def remains(self, folder: Path) -> list[int]:
        """The processes that live of the attempt in this folder."""
        return processes_of(f"{ATTEMPT_VARIABLE}={AttemptFolder(folder).file}")


def ended(job: Job) -> Exit:
    """How the job ends, which is waited for."""
    found = job.wait(PATIENCE_SECONDS)
    assert found is not None, "it still runs"
    return found


def until_said(job: Job, words: str) -> None:
    eventually(lambda: words in job.log.read_text())


def daemon_of(log: Path) -> int:
    """The process id that `DAEMON` has printed."""
    return next(int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("daemon"))


def command_lines() -> list[str]:
    return [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]


def start_python(source: str, *arguments: str) -> subprocess.Popen[bytes]:
    path = f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{ROOT}"
    return subprocess.Popen([sys.executable, "-c", source, *arguments], env={**os.environ, "PYTHONPATH": path})
