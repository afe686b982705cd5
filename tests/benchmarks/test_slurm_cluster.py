"""A Slurm that is taken down leaves nothing, whatever was done to its daemons before, and does nothing to another."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.slurm_cluster import SlurmCluster, why_not
from benchmarks.slurm_processes import processes_of_jobs
from tests.processes.maker import eventually, lives

pytestmark = pytest.mark.xdist_group("slurm")
TASK = "env -i setsid sleep 600 & trap '' TERM; while true; do sleep 600; done"
"""It ignores SIGTERM, and one of its processes shows neither the job's environment nor its session."""


def conf(cluster: SlurmCluster) -> Path:
    return Path(cluster.environment["SLURM_CONF"])


def begun(cluster: SlurmCluster) -> tuple[str, set[psutil.Process]]:
    """A job on the first node, and its processes: the step's daemon, the script, and two of `sleep`."""
    job = cluster.run("sbatch", "--parsable", "--nodelist=n1", "--output=/dev/null", f"--wrap={TASK}").strip()
    return job, eventually(lambda: found if len(found := processes_of_jobs(conf(cluster), job)) == 4 else None)


def test_no_process_is_left_of_a_cluster_and_another_ones_live_on() -> None:
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    with contextlib.closing(SlurmCluster()) as one, contextlib.closing(SlurmCluster()) as other:
        (job, ours), (its, theirs) = begun(one), begun(other)
        assert job != its and not ours & theirs
        one.stop("n1", signal.SIGKILL)
        daemons = [psutil.Process(each.pid) for each in one.processes.values()]
        one.close()
        assert not any(lives(each.pid) for each in (*ours, *daemons)) and not one.folder.exists()
        assert all(lives(each.pid) for each in theirs)

        (daemon,) = (each for each in theirs if each.name().startswith("slurmstepd"))
        daemon.kill()
        other.processes["n1"].send_signal(signal.SIGSTOP)
        other.stop("slurmctld", signal.SIGKILL)
        other.end_jobs(job)
        assert sum(lives(each.pid) for each in theirs) == 3
        other.close()
        assert not any(lives(each.pid) for each in theirs)
