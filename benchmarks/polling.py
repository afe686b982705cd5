"""The cost of one poll of the watchdog, in milliseconds of CPU, at the start and at the end of a long run.

    python -m benchmarks.polling [--updates 2000] [--watch SECONDS]

`--watch`: instead, the share of a core that `ladder run` takes while it watches a script that logs five metrics once a
second, from ten seconds after the first metric on: imports, start and end do not count.

The metrics of a recorded healthy run go to a real SQLite store, repeated to the length asked for. After 100 updates,
after half and after all of them, 30 polls are timed, each after one more update.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.recordings import path_of
from benchmarks.report import median, write
from pipeline.config import ExperimentConfig
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store

_SCRIPT = """
import mlflow, random, time
for step in range({steps}):
    noise = random.random()
    mlflow.log_metrics({{"loss": 1 / (step + 1) + 0.01 * noise, "reward": step + noise, "grad_norm": noise,
                         "accuracy": step / {steps}, "lr": 0.1}}, step=step)
    time.sleep(1)
"""
_SETTLING_SECONDS = 10.0
_LONGEST_START_SECONDS = 120.0
POLLS = 30
"""Number of polls that are timed at each point."""


def watching(seconds: float) -> float:
    """The share of a core that the process of `ladder run` takes while it watches a script."""
    with tempfile.TemporaryDirectory(prefix="polling-") as name:
        folder = Path(name)
        steps = round(seconds + 2 * _SETTLING_SECONDS)
        (folder / "script.py").write_text(_SCRIPT.format(steps=steps), encoding="utf-8")
        experiment = "experiment: {name: watching}\ntrainer: {command: [python, script.py]}\n"
        (folder / "watching.yaml").write_text(experiment, encoding="utf-8")
        command = [sys.executable, "-P", "-m", "pipeline", "run", "watching.yaml"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            log, until = "", time.monotonic() + _LONGEST_START_SECONDS
            while "training, " not in log:  # a line of progress
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError("the script has logged nothing")
                time.sleep(0.2)
                log = "".join(each.read_text(encoding="utf-8") for each in folder.glob("mlruns/experiments/*.log"))
            time.sleep(_SETTLING_SECONDS)
            watched = psutil.Process(process.pid)
            before, began = watched.cpu_times(), time.monotonic()
            time.sleep(seconds)
            after, took = watched.cpu_times(), time.monotonic() - began
            return (after.user + after.system - before.user - before.system) / took
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000, help="length of the run")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="measure the share of a core, for so long")
    asked = parser.parse_args()
    if asked.watch is not None:
        share = watching(asked.watch)
        print(f"watching a script that logs once a second takes {share:.2%} of a core")
        print(f"written to {write('watching', {'seconds': asked.watch, 'share_of_a_core': share})}")
        return
    recorded = History.read_csv(path_of("score_1000k", "v3", 1))
    rows = [dict(zip(*(each.tolist() for each in recorded.series(name)), strict=True)) for name in recorded.metrics]
    steps = recorded.series("update")[0].tolist()
    config = ExperimentConfig()

    with tempfile.TemporaryDirectory() as name:
        store = Store(default_uri(Path(name)), Path(name))
        run_id = store.start_parent(config)
        watch = Watchdog(store, run_id, config.health.build())

        def log(update: int) -> None:
            source = steps[update % len(steps)]
            values = {key: row[source] for key, row in zip(recorded.metrics, rows, strict=True) if source in row}
            values |= {"update": float(update), "episodes": 2.5 * update}
            store.log_metrics(run_id, values, step=2048 * (update + 1))

        update, found = 0, {}
        for mark in (100, asked.updates // 2, asked.updates):
            while update < mark - POLLS:
                log(update)
                watch.poll()
                update += 1
            spent = []
            for _ in range(POLLS):
                log(update)
                update += 1
                began = time.process_time()
                assert watch.poll() is None
                spent.append(1000 * (time.process_time() - began))
            found[mark] = median(spent)
    for mark, (middle, low, high) in found.items():
        print(f"after {mark:5} updates: {middle:6.1f} ms [{low:.1f}, {high:.1f}] a poll")
    first, *_, last = found.values()
    print(f"the last over the first: {last[0] / first[0]:.2f}")
    path = write("polling", {"milliseconds": found, "last_over_first": last[0] / first[0]})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
