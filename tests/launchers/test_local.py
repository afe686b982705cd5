"""Processes of this machine, exec'd or forked from a zygote, are what a launcher promises."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.register_assert_rewrite("tests.launchers.conformance")

from pipeline.attempt.file import ATTEMPT_VARIABLE  # noqa: E402
from pipeline.attempt.folder import AttemptFolder  # noqa: E402
from pipeline.launchers import local  # noqa: E402
from pipeline.launchers.local import LocalLauncher  # noqa: E402
from pipeline.processes.environment import NOTE, take_over  # noqa: E402
from tests.launchers.conformance import PAUSE, ROOT, LauncherConformance, ended, until_said  # noqa: E402

PROGRAM = """
import os
from pathlib import Path
exec(compile(Path(os.environ["LADDER_ATTEMPT"]).with_name("program.py").read_text(), "program.py", "exec"))
"""
"""The module that stands for the project's own trainer: it runs what lies beside the attempt's file."""
FORKED = (sys.executable, "-P", "-m", "program_of_attempt")


@pytest.fixture(scope="module", autouse=True)
def _modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A zygote imports something small instead of torch, and another module is the trainer that it forks."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "preloaded_for_launcher.py").write_text("")
    (folder / "program_of_attempt.py").write_text(PROGRAM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
        patch.setattr(local, "PRELOADED", ("preloaded_for_launcher",))
        patch.setattr(local, "OWN_TRAINER", FORKED)
        yield


@pytest.fixture(scope="class")
def launcher() -> Iterator[LocalLauncher]:
    with contextlib.closing(LocalLauncher()) as launcher:
        yield launcher


class TestExecuted(LauncherConformance):
    """Any command."""

    make_source = "from pipeline.launchers.local import LocalLauncher; launcher = LocalLauncher()"


class TestForked(TestExecuted):
    """The project's own trainer."""

    make_source = f"""
from pipeline.launchers import local
local.PRELOADED, local.OWN_TRAINER = ("preloaded_for_launcher",), {FORKED}
launcher = local.LocalLauncher()
"""

    def command(self, source: str, folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        (folder / "program.py").write_text(source)
        return list(FORKED)

    def test_it_is_the_zygotes_child(self, launcher: LocalLauncher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder)
        until_said(job, "ready")
        (found,) = self.remains(folder)
        parent = psutil.Process(found).parent()
        assert parent is not None and "pipeline.processes.zygote_process" in parent.cmdline()
        assert parent.parent() == psutil.Process()
        job.kill()

    def test_it_is_started_without_a_zygote_whose_modules_cannot_be_imported(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local, "PRELOADED", ("no_such_module",))
        with contextlib.closing(LocalLauncher()) as launcher:
            said = self.said(launcher, "import os; print(os.getppid())", folder)
        assert int(said) == os.getpid()

    def test_it_has_a_new_zygote_after_the_first_was_killed(self, launcher: LocalLauncher, folder: Path) -> None:
        zygotes = set()
        for _ in range(2):
            job = self.start(launcher, PAUSE, folder)
            until_said(job, "ready")
            (found,) = self.remains(folder)
            zygotes.add(zygote := psutil.Process(found).ppid())
            os.kill(zygote, signal.SIGKILL)
            assert ended(job).detail == {"signal": "SIGKILL"}
            job.kill()
            job.log.unlink()
        assert len(zygotes) == 2 and not self.remains(folder)

    def test_other_trainers_of_its_zygote_run_on_where_one_is_refused(
        self, launcher: LocalLauncher, folder: Path
    ) -> None:
        job = self.start(launcher, PAUSE, folder)
        refused = folder.parent / "refused"
        (refused / "trainer.log").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            self.start(launcher, PAUSE, refused)
        assert job.wait(0) is None
        job.kill()


PRINT = "import json, os; print(json.dumps([os.environ.get(name) for name in ('MPLBACKEND', 'FORCE_COLOR')]))"


def test_the_users_environment_reaches_the_users_trainer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {NOTE: "{}", "MPLBACKEND": "misspelt", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    take_over({"MPLBACKEND": "agg", "FORCE_COLOR": None})
    with contextlib.closing(LocalLauncher()) as launcher:
        for source, folder, command in (
            (PRINT, "theirs", [sys.executable, "-c", PRINT]),
            (PRINT, "ours", list(FORKED)),
        ):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "program.py").write_text(source)
            attempt = {ATTEMPT_VARIABLE: str(AttemptFolder(tmp_path / folder).file)}
            job = launcher.launch(command, attempt, tmp_path / folder)
            assert ended(job).code == 0
            said = json.loads(job.log.read_text())
            assert said == (["misspelt", "1"] if folder == "theirs" else ["agg", None])
            job.kill()


def test_a_guardian_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with contextlib.closing(LocalLauncher()) as launcher:
        guardians = []
        for _ in range(2):
            ended(launcher.launch([sys.executable, "-c", ""], {}, tmp_path))
            assert launcher._guardian is not None
            guardians.append(launcher._guardian)
            guardians[-1].kill()
            guardians[-1].wait()
        assert guardians[0].pid != guardians[1].pid
