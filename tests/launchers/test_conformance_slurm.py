"""Jobs of a real Slurm: all that every launcher promises, and what Slurm does to jobs."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.launchers.conformance")
pytest.register_assert_rewrite("tests.launchers.conformance_remote")

from benchmarks.slurm_cluster import SlurmCluster  # noqa: E402
from pipeline.launchers.engine import Refused, State  # noqa: E402
from pipeline.launchers.patience import Patience  # noqa: E402
from pipeline.launchers.remote import RemoteLauncher  # noqa: E402
from pipeline.launchers.remote_job import RemoteJob  # noqa: E402
from pipeline.launchers.slurm import Slurm  # noqa: E402
from tests.launchers.conformance import ANSWERS, PAUSE, ended, until_said  # noqa: E402
from tests.launchers.conformance_remote import RemoteConformance  # noqa: E402
from tests.processes.maker import eventually  # noqa: E402

pytestmark = pytest.mark.xdist_group("slurm")
QUICK = Patience(engine=0.5, folder=0.02, late=2.0)
EATS = """
print("ready", flush=True)
held = []
while True:
    held.append(bytearray(50_000_000))
"""


@pytest.fixture(scope="class")
def launcher(slurm_cluster: SlurmCluster) -> Iterator[RemoteLauncher]:
    with contextlib.closing(RemoteLauncher(Slurm((), 2.0), 60, 2.0, QUICK)) as launcher:
        yield launcher


class TestSlurm(RemoteConformance):
    """sbatch, squeue and scancel."""

    make_source = """
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.launchers.slurm import Slurm
launcher = RemoteLauncher(Slurm((), 1.0), lease_seconds=1, grace_seconds=1, patience=Patience(engine=0.5, folder=0.02))
"""

    def begun(self, launcher: RemoteLauncher, source: str, folder: Path) -> RemoteJob:
        job = self.start(launcher, source, folder)
        until_said(job, "ready")
        assert isinstance(job, RemoteJob)
        return job

    def test_a_persons_scancel_is_told_with_the_user(
        self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
        slurm_cluster.run("scancel", job.id)
        found = ended(job)
        assert found.cancelled == f"slurm job {job.id} was cancelled" and found.taken is None
        assert "heard SIGTERM" in job.log.read_text()

    def test_it_is_told_also_where_the_engine_is_seldom_asked(self, slurm_cluster: SlurmCluster, folder: Path) -> None:
        with contextlib.closing(RemoteLauncher(Slurm(), 60, 2)) as launcher:
            job = self.begun(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
            slurm_cluster.run("scancel", job.id)
            found = ended(job)
            assert found.cancelled is not None and found.taken is None

    def test_a_job_that_is_cancelled_while_it_waits(
        self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path
    ) -> None:
        with contextlib.closing(RemoteLauncher(Slurm(("--begin=now+1hour",)), 60, 2, QUICK)) as late:
            job = self.start(late, PAUSE, folder)
            eventually(lambda: "BeginTime" in (job.waiting or ""))
            slurm_cluster.run("scancel", job.id)
            assert ended(job).cancelled is not None

    def test_memory_that_ran_out(self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path) -> None:
        if not slurm_cluster.has_cgroups:
            pytest.skip("Slurm sees no memory here: there are no control groups")
        found = ended(self.begun(launcher, EATS, folder))
        assert found.out_of_memory and found.taken is None and found.cancelled is None

    def test_preemption(self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path) -> None:
        with contextlib.closing(RemoteLauncher(Slurm(("--exclusive", "--nodelist=n1")), 60, 2, QUICK)) as own:
            job = self.begun(own, ANSWERS.format(then="sys.exit(0)"), folder)
            urgent = [
                "sbatch",
                "--partition=urgent",
                "--exclusive",
                "--nodelist=n1",
                "--parsable",
                "--output=/dev/null",
            ]
            other = slurm_cluster.run(*urgent, "--wrap=sleep 1").strip()
            found = ended(job)
            assert found.taken == f"slurm job {job.id}: preempted" and "heard SIGTERM" in job.log.read_text()
            slurm_cluster.run("scancel", other)

    def test_a_requeue_is_refused_by_slurm(
        self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path
    ) -> None:
        job = self.begun(launcher, PAUSE, folder)
        slurm_cluster.run("scontrol", "requeue", job.id, check=False)
        assert job.wait(1.0) is None
        job.kill()

    def test_a_requeue_that_is_forced_runs_nothing_twice(
        self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(130)"), folder)
        slurm_cluster.run("scontrol", "update", f"JobId={job.id}", "Requeue=1")
        slurm_cluster.run("scontrol", "requeue", job.id)
        assert ended(job).taken is not None
        job.kill()
        eventually(lambda: not slurm_cluster.run("squeue", "-h", f"--jobs={job.id}", check=False).strip())

    def test_a_controller_that_is_away_holds_up_nothing(
        self, launcher: RemoteLauncher, slurm_cluster: SlurmCluster, folder: Path
    ) -> None:
        job = self.begun(launcher, ANSWERS.format(then="sys.exit(7)"), folder)
        slurm_cluster.stop("slurmctld", signal.SIGTERM)
        try:
            assert job.wait(1.0) is None
            job.terminate()
            assert ended(job).code == 7
        finally:
            slurm_cluster.start("slurmctld")
            slurm_cluster.await_nodes()

    def test_options_reach_sbatch_and_its_refusal_is_told(self, slurm_cluster: SlurmCluster, folder: Path) -> None:
        with pytest.raises(Refused, match="nope"):
            Slurm(("--partition=nope",)).test()
        assert "to start" in Slurm(("--partition=main", "--cpus-per-task=2")).test()
        with contextlib.closing(RemoteLauncher(Slurm(("--partition=nope",)), 60, 2, QUICK)) as launcher:
            assert "nope" in (ended(self.start(launcher, PAUSE, folder)).refused or "")

    def test_a_nested_submission_knows_nothing_of_the_job_around_it(
        self, launcher: RemoteLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {"SLURM_JOB_ID": "99", "SLURM_MEM_PER_CPU": "1", "SBATCH_PARTITION": "nope"}.items():
            monkeypatch.setenv(name, value)
        said = self.said(launcher, "import os; print(os.environ['SLURM_JOB_ID'], os.environ['SLURM_CONF'])", folder)
        assert said.split()[0] != "99" and said.split()[1] == os.environ["SLURM_CONF"]

    def test_the_states_of_several_are_what_each_is_told_alone(
        self, slurm_cluster: SlurmCluster, folder: Path, tmp_path: Path
    ) -> None:
        asked: list[int] = []

        class Counting(Slurm):
            def states(self, jobs: Sequence[str]) -> Mapping[str, State]:
                asked.append(len(jobs))
                return super().states(jobs)

        with contextlib.ExitStack() as stack:
            jobs = []
            for number, options in enumerate(((), ("--begin=now+1hour",), ())):
                launcher = stack.enter_context(contextlib.closing(RemoteLauncher(Counting(options), 60, 2, QUICK)))
                jobs.append(self.start(launcher, PAUSE if number < 2 else "", tmp_path / f"attempt{number}"))
            runs, waits, ends = jobs
            until_said(runs, "ready")
            assert ended(ends).code == 0
            ids = [job.id for job in jobs]
            eventually(lambda: Slurm().state(ids[2]).phase == "ended" and waits.state is not None)
            said = Slurm().states([*ids, "999999"])
            assert said == {job: Slurm().state(job) for job in ids}
            assert [said[job].phase for job in ids] == ["running", "queued", "ended"]
            eventually(lambda: 2 in asked and runs.state == said[ids[0]] and waits.state == said[ids[1]])

    def test_a_signal_before_the_time_limit(self, launcher: RemoteLauncher, folder: Path) -> None:
        with contextlib.closing(RemoteLauncher(Slurm(("--time=1", "--signal=B:USR1@58")), 60, 2, QUICK)) as own:
            found = ended(self.begun(own, ANSWERS.format(then="sys.exit(0)"), folder))
            assert found.taken is not None and found.code == 0


def test_a_lost_node(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    with contextlib.closing(RemoteLauncher(Slurm(("--nodelist=n2",)), 60, 2, QUICK)) as launcher:
        suite = TestSlurm()
        job = suite.begun(launcher, PAUSE, tmp_path / "attempt")
        slurm_cluster.stop("n2", signal.SIGKILL)
        try:
            found = ended(job)
            assert found.taken == f"slurm job {job.id}: its node was lost"
            job.kill()
            eventually(lambda: not suite.remains(tmp_path / "attempt"))  # withdrawn, so its warden ends it
        finally:
            slurm_cluster.start("n2")
            slurm_cluster.await_nodes()
