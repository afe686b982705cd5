"""What `ladder.speculate` saves: from the update that decides a failure to the first update of the next rung.

`python -m benchmarks.speculation [--repeats N] [--where local,slurm,busy] [--patience N]`

The trainer is this project's own, on a small game; a rule fires after so many updates, and stirs after half of them.
`slurm` has a Slurm of two virtual nodes on this machine with an idle queue. In `busy`, other jobs of 20 seconds, each
of a whole node, wait before ours at all times. Both moments are read off the store, so what the pipeline itself does
between two attempts counts too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import write
from benchmarks.slurm_cluster import SlurmCluster
from pipeline.callbacks.callback import Callback, ExperimentStarted
from pipeline.config import ExperimentConfig
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.launchers.choose import make_launcher
from pipeline.tracking.access import create_database, default_uri, mlflow_database
from pipeline.tracking.store import Store

WHERE = ("local", "slurm", "busy")
_OTHERS_SECONDS = 20
_WAITING = 2
"""Other jobs that wait at all times."""


def configuration(root: Path, where: str, patience: int, *, speculate: bool) -> ExperimentConfig:
    """Two rungs; the first one fails by a rule, the second is the same without the rule."""
    rule = {
        "name": "after_so_many",
        "verdict": "gradient_explosion",
        "conditions": [{"metric": "update", "above": 0}],
        "window": patience,
        "patience": patience,
    }
    values = {
        "environment.num_envs": 4,
        "environment.max_episode_steps": 40,
        "policy.hidden_size": 16,
        "training.workers": 1,
        "training.rollout_steps": 32,
        "training.batch_size": 64,
        "training.ppo_epochs": 2,
        "training.episodes": 5000,
        "tracking.root": str(root),
        "tracking.publish": False,
        "health.rules": "none",
        "health.extra": [rule],
        "health.poll_seconds": 0.5,
        "ladder.rungs": ["v3", {"name": "next", "set": {"health.extra": []}}],
        "ladder.remedies": 0,
        "ladder.speculate": speculate,
    }
    if where != "local":
        whole = ["--exclusive"] if where == "busy" else []
        values |= {"launcher.kind": "slurm", "launcher.options": ["--mem=2000M", *whole]}
    return ExperimentConfig().with_values(values)


class StopAtSecond(Callback):
    """Ends the experiment when its second attempt has logged an update."""

    def experiment_started(self, event: ExperimentStarted) -> None:
        self._stop, self._number = event.stop, 0

    def attempt_started(self, plan: object, number: int, run_id: str) -> None:
        self._number = number  # one that was taken away goes on with the same number

    def progress(self, latest: object) -> None:
        if self._number == 1 and "update" in latest:  # type: ignore[operator]
            self._stop("measured")


def measure(where: str, patience: int, *, speculate: bool) -> float:
    """Seconds between the update at which the rule has fired and the first update of the next rung."""
    with tempfile.TemporaryDirectory(prefix="speculation-") as folder:
        root = Path(folder)
        create_database(mlflow_database(root), (root / "artifacts").as_uri())
        store = Store(default_uri(root), root)
        config = configuration(root, where, patience, speculate=speculate)
        with contextlib.closing(make_launcher(config)) as launcher:
            orchestrator = Orchestrator(config, store, launcher, (StopAtSecond(),))
            orchestrator.run()
        first, second = orchestrator.attempts[:2]
        fired = first.verdict.evidence[0].detection_step
        at = {step: time for step, time, _ in store.points(first.run_id, ["update"])["update"]}
        begun = min(time for _, time, _ in store.points(second.run_id, ["update"])["update"])
        return (begun - at[fired]) / 1000


@contextlib.contextmanager
def others(cluster: SlurmCluster) -> Iterator[None]:
    """Keeps a queue of other people's jobs before ours, until the block ends."""
    over, numbers = threading.Event(), itertools.count()

    def submit() -> None:
        words = ("--exclusive", "--output=/dev/null", f"--wrap=sleep {_OTHERS_SECONDS}")
        cluster.run("sbatch", f"--job-name=other-{next(numbers)}", *words)

    def keep() -> None:
        while not over.is_set():
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                names = cluster.run("squeue", "-h", "--states=PENDING", "-o", "%j").split()
                for _ in range(_WAITING - sum(name.startswith("other-") for name in names)):
                    submit()
            over.wait(0.5)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        cluster.run("scancel", "--user=root", check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--where", default=",".join(WHERE))
    parser.add_argument("--patience", type=int, default=40, help="updates until the rule fires")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    seconds: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as held:
        cluster = None
        for where in arguments.where.split(","):
            seconds[where] = {"off": [], "on": []}
            if where != "local" and cluster is None:
                cluster = held.enter_context(contextlib.closing(SlurmCluster()))
                os.environ |= cluster.environment
            with others(cluster) if where == "busy" and cluster is not None else contextlib.nullcontext():
                for _ in range(arguments.repeats):
                    for name in ("off", "on"):  # in turn, so that both see the same load
                        took = measure(where, arguments.patience, speculate=name == "on")
                        seconds[where][name].append(round(took, 2))
                        print(f"{where}, speculate {name}: {took:.1f} s", flush=True)
    for where, found in seconds.items():
        off, on = (float(np.median(found[name])) for name in ("off", "on"))
        print(f"{where}: median {off:.1f} s without, {on:.1f} s with, saved {off - on:.1f} s")
    write("speculation", {"patience": arguments.patience, "seconds": seconds}, arguments.out)


if __name__ == "__main__":
    main()
