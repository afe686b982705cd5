"""The faults of a night on a cluster: a node lost, a controller away, preemption, a person's scancel."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time

from benchmarks.slurm_cluster import SlurmCluster
from benchmarks.survival_faults import (
    Fault,
    Scene,
    Struck,
    orchestrator,
    second_orchestrator,
    store_locked,
    trainer,
    worker_killed,
)

NODES = ("n1", "n2")


def _jobs(cluster: SlurmCluster) -> list[tuple[str, str]]:
    """Id and node of each job that runs."""
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        lines = cluster.run("squeue", "-h", "--states=RUNNING", "-o", "%i %N").splitlines()
        return [(line.split()[0], line.split()[1]) for line in lines if len(line.split()) == 2]
    return []


def cancelled(scene: Scene) -> Struck:
    """A person cancels the job; the experiment ends in order, and the user resumes it."""
    assert scene.cluster is not None
    if scene.over or not (jobs := _jobs(scene.cluster)):
        return Struck.NOTHING
    scene.cluster.run("scancel", jobs[0][0])
    return Struck.ORCHESTRATOR


def preempted(scene: Scene) -> Struck:
    """A job of a partition with more priority takes the whole node for five seconds."""
    assert scene.cluster is not None
    if scene.over or not (jobs := _jobs(scene.cluster)):
        return Struck.NOTHING
    words = ("--partition=urgent", "--exclusive", f"--nodelist={jobs[0][1]}", "--output=/dev/null", "--wrap=sleep 5")
    scene.cluster.run("sbatch", *words)
    return Struck.TRAINER


def node_lost(scene: Scene) -> Struck:
    """A node's daemon and all its processes die at once; after 25 seconds the node is back."""
    assert scene.cluster is not None
    if scene.over or not (jobs := _jobs(scene.cluster)):
        return Struck.NOTHING
    job, node = jobs[0]
    scene.cluster.stop(node)
    scene.cluster.end_jobs(job)
    time.sleep(25)
    scene.cluster.start(node)
    return Struck.TRAINER


def controller_away(scene: Scene) -> Struck:
    """Slurm's controller is away for up to forty seconds."""
    assert scene.cluster is not None
    scene.cluster.stop("slurmctld", signal.SIGTERM)
    time.sleep(scene.chance.uniform(1, 40))
    scene.cluster.start("slurmctld")
    return Struck.PASSING


FAULTS_ON_A_CLUSTER: dict[str, Fault] = {
    "trainer SIGKILL": trainer(signal.SIGKILL),
    "trainer SIGSTOP": trainer(signal.SIGSTOP),
    "worker SIGKILL": worker_killed,
    "orchestrator SIGKILL": orchestrator(signal.SIGKILL),
    "orchestrator SIGINT": orchestrator(signal.SIGINT),
    "store locked": store_locked,
    "second orchestrator": second_orchestrator,
    "job cancelled": cancelled,
    "job preempted": preempted,
    "node lost": node_lost,
    "controller away": controller_away,
}
