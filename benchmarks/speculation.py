"""What `ladder.speculate` saves: from the update that decides a failure to the first update of the next rung.

`python -m benchmarks.speculation [--repeats N] [--where local,slurm,busy] [--patience N]`; `--where ""`: replays alone

The trainer is this project's own, on a small game; a rule fires after so many updates, and stirs after half of them.
`slurm` has a Slurm of two virtual nodes on this machine with an idle queue. In `busy`, other jobs of 20 seconds, each
of a whole node, wait before ours at all times. Both moments are read off the store, so what the pipeline itself does
between two attempts counts too.

How often a place is held in vain is replayed on the recorded histories, as if each update were looked at: in which
healthy runs the rules would have queued one, and how many updates before a verdict the place was there.
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
from typing import Any

import numpy as np

from benchmarks.detection import is_reported, recordings
from benchmarks.report import median, percent, share, write
from benchmarks.slurm_cluster import SlurmCluster
from pipeline.attempt.folder import mlflow_database
from pipeline.callbacks.callback import Callback, ExperimentStarted
from pipeline.config import ExperimentConfig
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.speculation import MOST
from pipeline.experiment.watchdog import CALM
from pipeline.health.history import History
from pipeline.health.monitor import judge, stirring
from pipeline.health.rule import Rule
from pipeline.health.rule_sets import RULE_SETS
from pipeline.launchers.choose import make_launcher
from pipeline.tracking.access import create_database, default_uri
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
        assert fired is not None
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


def places(history: History, rules: tuple[Rule, ...]) -> list[tuple[int, int | None]]:
    """The places that would have been held until the verdict: the updates of their beginning and of their end.

    None: it was held when the verdict came, or when the run was over.
    """
    steps, _ = history.series("update")
    verdict = judge(history, rules)
    last = len(steps) if verdict is None else int(np.searchsorted(steps, verdict.detection_step or 0))
    values = {name: dict(zip(*history.series(name), strict=True)) for name in history.metrics}
    rows = [{name: float(of[step]) for name, of in values.items() if step in of} for step in steps[:last]]
    found: list[tuple[int, int | None]] = []
    held, calm, in_vain = None, 0, 0
    for index, (before, now) in enumerate(itertools.pairwise([{}, *rows])):
        due = stirring(now, before, rules)
        stirs = any(rule.stirred(history, int(steps[index]), int(steps[index])) is not None for rule in due)
        calm = 0 if stirs else calm + 1
        if stirs and held is None and in_vain < MOST:
            held = index
        elif held is not None and calm >= CALM:
            found.append((held, index))
            held, in_vain = None, in_vain + 1
    return found if held is None else [*found, (held, None)]


def replayed() -> dict[str, Any]:
    """What the rules would have queued on the recorded runs of fresh seeds."""
    rules = RULE_SETS["v3"]
    chosen = [each for each in recordings() if is_reported(each)]
    vain, ahead, missed, places_in_vain = 0, [], 0, 0
    healthy = [each for each in chosen if each.is_healthy]
    for each in healthy:
        held = places(each.history, rules)
        vain += bool(held)
        places_in_vain += len(held)
    for each in chosen:
        if each.is_healthy or (verdict := judge(each.history, rules)) is None:
            continue
        end = int(np.searchsorted(each.history.series("update")[0], verdict.detection_step or 0))
        held = places(each.history, rules)
        if held and held[-1][1] is None:
            ahead.append(end - held[-1][0])
        else:
            missed += 1
        places_in_vain += sum(given_up is not None for _, given_up in held)
    return {
        "healthy_runs": len(healthy),
        "healthy_runs_with_a_place": share(vain, len(healthy)),
        "runs_with_a_verdict": len(ahead) + missed,
        "of_them_with_a_place": share(len(ahead), len(ahead) + missed),
        "updates_before_the_verdict": median(ahead),
        "each": sorted(ahead),
        "places_in_vain": places_in_vain,
    }


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
        for where in filter(None, arguments.where.split(",")):
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
    recorded = replayed()
    print("healthy runs with a place held in vain: " + percent(recorded["healthy_runs_with_a_place"]))
    print("runs with a verdict that a place was held for: " + percent(recorded["of_them_with_a_place"]))
    print(
        "updates from the place to the verdict: {:.0f} [{:.0f}, {:.0f}]".format(*recorded["updates_before_the_verdict"])
    )
    content = {"patience": arguments.patience, "seconds": seconds, "recorded": recorded}
    print(f"written to {write('speculation', content, arguments.out)}")


if __name__ == "__main__":
    main()
