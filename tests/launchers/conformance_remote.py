"""What every launcher of a cluster has to do, beside what all launchers do. See :mod:`tests.launchers.conformance`."""

from __future__ import annotations

from pathlib import Path

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.base import Launcher
from tests.launchers.conformance import ANSWERS, PAUSE, LauncherConformance, ended, until_said


class RemoteConformance(LauncherConformance):
    """Its jobs outlive the process that launches them, and another one attaches to them."""

    def test_end_remains_ends_a_job_that_another_process_has_launched(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, PAUSE, folder)
        until_said(job, "ready")
        assert launcher.end_remains(AttemptFolder(folder).file) == 1
        assert not self.remains(folder) and launcher.attach(AttemptFolder(folder).file) is None
        assert ended(job).detail == {"signal": "SIGKILL"}

    def test_it_can_be_attached_to_and_terminated(self, launcher: Launcher, folder: Path) -> None:
        job = self.start(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
        until_said(job, "ready")
        attached = launcher.attach(AttemptFolder(folder).file)
        assert attached is not None and attached.wait(0) is None and attached.waiting is None
        attached.terminate()
        assert ended(attached).code == 130 and ended(attached).taken is None
        job.kill()
