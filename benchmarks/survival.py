"""Does the pipeline survive a night? Random faults strike short runs; it counts what survives, is lost, is left behind.

    python -m benchmarks.survival [--seeds 10] [--first-seed 1] [--budget 20]          budget: faults for each seed
    python -m benchmarks.survival --report                                             only the page
    python -m benchmarks.survival --launcher slurm [--seeds 1] [--budget 10]           trainers as jobs of a real Slurm
    python -m benchmarks.survival --minutes 10                                         no fault strikes after that

Each seed is a series of small experiments on real NetHack with two workers, on a small disk of its own if this process
may mount one. Every second seed has its store behind an MLflow server with PostgreSQL, if that is installed. Faults
strike at random moments, also while something starts, ends, or has just been struck. An experiment that ends early is
continued with `ladder resume`. It has survived a fault if it is still at work afterwards, or ends healthy, with no
other help.

What is lost is counted as updates without metrics, updates with metrics twice, and episodes; what is left behind as
processes, RUNNING runs, and temporary files. The time from the death of a trainer to the next attempt's first
environment step is measured too; it means most on an idle machine. Each seed writes a file of its own under
`results/survival/`; a seed whose file exists is not run again. Nights on Slurm have two virtual nodes on this machine,
faults of a cluster, and files under `results/survival_slurm/`; they are not part of the page.

What counts as a hang, and how long an end is waited for, grows with the time that an import of the trainer takes as the
night begins: a busy machine is no fault.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway import Gateway
from benchmarks.report import RESULTS, median, write
from benchmarks.slurm_cluster import SlurmCluster
from benchmarks.survival_cluster import FAULTS_ON_A_CLUSTER
from benchmarks.survival_faults import FAULTS, LADDER, Scene, Struck
from benchmarks.tracking_server import TrackingServer, why_not
from pipeline.errors import EXIT_HEALTHY, EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED
from pipeline.processes.guardian import processes_of
from pipeline.tracking.store import Store

SETTINGS = """
experiment: {name: survival}
environment: {num_envs: 4, max_episode_steps: 40, max_entities: 8, crop_size: 5, random_episodes: 4}
policy: {hidden_size: 16}
training: {workers: 2, rollout_steps: 16, batch_size: 32, ppo_epochs: 2, warmup_steps: 4, episodes: 400,
           checkpoint_every_episodes: 8, score_window: 8}
phases: {warmup_until: 100, transition_until: 200}
health: {poll_seconds: 0.5}
ladder: {rungs: [v3]}
budget: {retries: 1000, attempts: 1000, hang_after_seconds: 20}
"""
FOLDER = RESULTS / "survival"
PAGE = RESULTS.parent.parent / "docs" / "survival.md"
LONGEST_WAIT_SECONDS = 12.0
"""Longest time between two faults."""
_END_SECONDS, _BEGIN_SECONDS = 300.0, 60.0
_IDLE_IMPORT_SECONDS = 4.0
"""An import of the trainer on an idle machine."""
LOSSES = ("updates", "updates twice", "episodes", "processes", "RUNNING runs", "files")


def how_slow() -> float:
    """How many times longer an import of the trainer takes now than on an idle machine; at least 1."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import pipeline.training.trainer"], check=True)
    return max(1.0, (time.monotonic() - began) / _IDLE_IMPORT_SECONDS)


@dataclass
class Night:
    """The experiments of one seed, and the counts of what happened to them."""

    folder: Path
    chance: random.Random
    """Source of all random choices."""
    server: TrackingServer | None = None
    """The server in front of the store; None: the store is an SQLite file."""
    gateway: Gateway | None = None
    """The web server before that server."""
    cluster: SlurmCluster | None = None
    """Where the trainers run; None: on this machine."""
    slowness: float = field(default_factory=how_slow)
    injected: Counter[str] = field(default_factory=Counter)
    """Fault → how often it was injected."""
    survived: Counter[str] = field(default_factory=Counter)
    """Fault → how often it was survived."""
    lost_updates: int = 0
    updates_twice: int = 0
    lost_episodes: int = 0
    left: Counter[str] = field(default_factory=Counter)
    """What was left behind → how often."""
    experiments: int = 0
    attempts: int = 0
    updates: int = 0
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the death of a trainer to the next attempt's first environment step."""
    remarks: list[str] = field(default_factory=list)
    """What was odd, in words."""

    def __post_init__(self) -> None:
        self.root, self.file = self.folder / "root", self.folder / "experiment.yaml"
        self.environment = {**os.environ, **({"MLFLOW_TRACKING_URI": self.gateway.uri} if self.gateway else {})}
        settings = yaml.safe_load(SETTINGS)
        settings["training"]["seed"] = self.chance.randrange(1000)
        self.faults = FAULTS if self.cluster is None else FAULTS_ON_A_CLUSTER
        if self.cluster is not None:
            self.environment |= self.cluster.environment
            settings["launcher"] = {"kind": "slurm", "options": ["--mem=3000M"]}
            settings["budget"]["hang_after_seconds"] = 90  # a node imports torch anew
        settings["budget"]["hang_after_seconds"] *= self.slowness
        self.file.write_text(yaml.safe_dump(settings), encoding="utf-8")

    # The course of a night

    def live_through(self, budget: int, seconds: float = math.inf) -> None:
        """Runs experiments until `budget` faults have struck, or time is up, and counts what became of them."""
        until = time.monotonic() + seconds

        def goes_on() -> bool:
            return sum(self.injected.values()) < budget and time.monotonic() < until

        while goes_on():
            self.experiments += 1
            process = self._start("run", str(self.file))
            while process.poll() is None and goes_on():
                process = self._strike(process)
            self._let_end(process)
        self._count()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "ladder.log").open("ab")
        with closing(log):
            self._process = subprocess.Popen(
                self._command(*words), stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=self.environment
            )
        return self._process

    def end(self) -> None:
        """Kills the command that may still be at work; its trainers end with it."""
        self._process.kill()
        self._process.wait()

    def _command(self, *words: str) -> tuple[str, ...]:
        return (*LADDER, *words, f"tracking.root={self.root}")

    def _strike(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Waits, strikes, and resumes the experiment if it ended; returns the process that is at work now."""
        until = time.monotonic() + self.chance.uniform(0, LONGEST_WAIT_SECONDS)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        name = self.chance.choice(list(self.faults))
        began = time.time()
        resume = self._command("resume")
        scene = Scene(self.root, process, self.chance, resume, self.environment, self.server, self.gateway)
        scene.cluster = self.cluster
        struck = self.faults[name](scene)
        self.root, self.environment = scene.root, scene.environment
        if struck is Struck.NOTHING:
            return process
        self.injected[name] += 1
        if struck is Struck.ORCHESTRATOR:
            code = process.wait()
            allowed = {-signal.SIGKILL, EXIT_INTERRUPTED, EXIT_HEALTHY}
            if name in ("disk full", "store taken away"):
                allowed.add(EXIT_INFRASTRUCTURE)
            if code not in allowed:
                self.remarks.append(f"{name}: exit code {code}")
            process = self._go_on()
        elif struck is Struck.TRAINER and (seconds := self._recovery(began, process)) is not None:
            self.recoveries.append(seconds)
        if process.poll() in (None, 0):
            self.survived[name] += 1
        else:
            self.remarks.append(f"{name}: ended with {process.returncode}")
        return process

    def _go_on(self) -> subprocess.Popen[bytes]:
        """Starts `ladder resume`, or `ladder run` if the experiment was struck before it had begun."""
        store = self._store()
        begun = store is not None and any(run.status != "FINISHED" for run in store.parents())
        return self._start("resume") if begun else self._start("run", str(self.file))

    def _let_end(self, process: subprocess.Popen[bytes]) -> None:
        try:
            code = process.wait(_END_SECONDS * self.slowness)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != 0:
            self.remarks.append(f"an experiment ended with {code}")

    def _recovery(self, since: float, process: subprocess.Popen[bytes]) -> float | None:
        """Seconds from `since` until a trainer logs that its training begins; None if none does in time.

        None too if its clock is wrong.
        """
        if "CLOCK_IS_WRONG_BY" in self.environment:
            return None
        until = time.monotonic() + _BEGIN_SECONDS * self.slowness
        while time.monotonic() < until and process.poll() is None:
            for log in self.root.glob("attempts/*/trainer.log"):
                for begun in re.findall(
                    r"^(\S+ \S+),(\d+) trainer: training begins", log.read_text(encoding="utf-8"), re.MULTILINE
                ):
                    at = datetime.fromisoformat(begun[0]).timestamp() + int(begun[1]) / 1000
                    if at > since:
                        return at - since
            time.sleep(0.1)
        return None

    # What became of it

    def _store(self) -> Store | None:
        if self.server is not None:
            return Store(self.server.uri, self.root)
        return Store(f"sqlite:///{self.root / 'mlflow.db'}", self.root) if (self.root / "mlflow.db").exists() else None

    def _count(self) -> None:
        store = self._store()
        assert store is not None
        self.left["RUNNING runs"] += len(store.left_running())
        self.left["processes"] += sum(
            len(processes_of(f"LADDER_ATTEMPT={path}")) for path in self.root.glob("attempts/*/attempt.json")
        )
        for pattern in ("attempts/*/tmp", "attempts/**/*.tmp", "attempts/*/next-*", "experiments/*.lock"):
            self.left["files"] += len(list(self.root.glob(pattern)))
        for parent in store.parents():
            reached, last = 0.0, 0
            for run in store.attempts(parent):
                self.attempts += 1
                points = store.client.get_metric_history(run.run_id, "update")
                numbers = Counter(round(point.value) for point in points)
                if not numbers:
                    continue
                first, newest = min(numbers), max(numbers)
                self.updates += len(numbers)
                self.lost_updates += newest - first + 1 - len(numbers) + max(0, first - last - 1)
                self.updates_twice += sum(numbers.values()) - len(numbers)
                last, reached = newest, run.metrics["episodes"]
            wanted = yaml.safe_load(self.file.read_text(encoding="utf-8"))["training"]["episodes"]
            self.lost_episodes += max(0, wanted - round(reached))

    def result(self) -> dict[str, Any]:
        """All counts, for JSON."""
        return {
            "injected": dict(self.injected),
            "survived": dict(self.survived),
            "lost": {"updates": self.lost_updates, "updates twice": self.updates_twice, "episodes": self.lost_episodes},
            "left behind": dict(self.left),
            "experiments": self.experiments,
            "attempts": self.attempts,
            "updates": self.updates,
            "slowness": round(self.slowness, 1),
            "recovery_seconds": [round(each, 2) for each in self.recoveries],
            "remarks": self.remarks,
        }


@contextmanager
def own_disk(megabytes: int = 256) -> Iterator[Path]:
    """A folder on a file system of its own, if this process may mount one; else an ordinary folder."""
    with tempfile.TemporaryDirectory(prefix="survival-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder], check=True)


def live(seed: int, budget: int, seconds: float = math.inf, *, on_slurm: bool = False) -> dict[str, Any]:
    """Lives through one night; returns its counts."""
    behind_a_server = seed % 2 == 0 and why_not() is None and not on_slurm
    with ExitStack() as open_now:
        folder = open_now.enter_context(own_disk())
        server = gateway = None
        if behind_a_server:
            server = open_now.enter_context(closing(TrackingServer()))
            gateway = open_now.enter_context(closing(Gateway(server.uri)))
        cluster = open_now.enter_context(closing(SlurmCluster())) if on_slurm else None
        night = Night(folder, random.Random(seed), server, gateway, cluster)
        open_now.callback(night.end)
        night.live_through(budget, seconds)
    return {"seed": seed, "store": "server" if behind_a_server else "SQLite", **night.result()}


PAGE_TEXT = """# Surviving the night

`python -m benchmarks.survival` makes this page; do not edit it.

It runs {nights} short nights on real NetHack, on a small disk of their own; {servers} of them have the store behind
an MLflow server with PostgreSQL. Together they have {attempts} attempts and {updates} updates. Faults strike at
random moments, also while something starts, ends, or has just been struck. An experiment has *survived* a fault if
it is still at work afterwards or ends healthy, with no help but `ladder resume`.

| fault | injected | survived |
|---|---|---|
{table}

| lost or left behind | |
|---|---|
{losses}

From a trainer's death to the next attempt's first environment step: {median:.1f} s [{low:.1f}, {high:.1f}] in the
median of {count}, {most:.1f} s at most.
"""

ODD_TEXT = """What was odd:

- A negative exit code means that the signal came in the first second, before anything had begun.
- An experiment that had not begun ended with exit code 4 because the store was away: it refused to start, and said
  so. A store whose web server says that it restarts (502, 503, 504) is waited for, two minutes at most.
- Exit code 2 where the store is taken away: a command that begins then finds nothing to resume, and says so.
- A night before these is not among them: an orchestrator stood still until it was killed by hand, as its thread that
  asks the store waited for Python's import lock. Such a thread is given up after 300 s since.
- The nights ran beside other work, at a load of up to 18 on two cores: the seconds above tell of that too.

These are the cases:
"""


def render() -> str:
    """The page as Markdown, from the results of all nights."""
    nights = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]

    def total(key: str) -> Counter[str]:
        return sum((Counter(night[key]) for night in nights), Counter())

    injected, survived, losses = total("injected"), total("survived"), total("lost") + total("left behind")
    rows = [*((name, injected[name], survived[name]) for name in FAULTS), ("all", injected.total(), survived.total())]
    recoveries = [seconds for night in nights for seconds in night["recovery_seconds"]]
    middle, low, high = median(recoveries)
    text = PAGE_TEXT.format(
        nights=len(nights),
        servers=sum(night["store"] == "server" for night in nights),
        attempts=sum(night["attempts"] for night in nights),
        updates=sum(night["updates"] for night in nights),
        table="\n".join(f"| {name} | {struck} | {stood} |" for name, struck, stood in rows),
        losses="\n".join(f"| {name} | {losses[name]} |" for name in LOSSES),
        median=middle,
        low=low,
        high=high,
        count=len(recoveries),
        most=max(recoveries),
    )
    remarks = [f"- seed {night['seed']}: {remark}" for night in nights for remark in night["remarks"]]
    return "\n".join([text, ODD_TEXT, *remarks, ""]) if remarks else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="default: 10, and 1 on Slurm")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--budget", type=int, help="faults for each seed; default: 20, and 10 on Slurm")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no fault strikes; for each seed")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page from the results that exist")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where the trainers run")
    asked = parser.parse_args()
    on_slurm = asked.launcher == "slurm"
    folder = RESULTS / "survival_slurm" if on_slurm else FOLDER
    seeds, budget = asked.seeds or (1 if on_slurm else 10), asked.budget or (10 if on_slurm else 20)
    for seed in range(asked.first_seed, asked.first_seed + seeds) if not asked.report else ():
        path = folder / f"seed{seed}.json"
        if not path.exists():
            result = live(seed, budget, 60 * asked.minutes, on_slurm=on_slurm)
            print(result, flush=True)
            write("survival", result, path)
    if on_slurm:
        return
    PAGE.write_text(render(), encoding="utf-8")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
