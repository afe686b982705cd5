"""The cost of one poll of the watchdog, in milliseconds of CPU, at the start and at the end of a long run.

    python -m benchmarks.polling [--updates 2000]

The metrics of a recorded healthy run go to a real SQLite store, repeated to the length asked for. After 100 updates,
after half and after all of them, 30 polls are timed, each after one more update.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.recordings import path_of
from benchmarks.report import interval, write
from pipeline.config import ExperimentConfig
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store

POLLS = 30
"""Number of polls that are timed at each point."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000, help="length of the run")
    asked = parser.parse_args()
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
            found[mark] = interval(spent, "median")
    for mark, (median, low, high) in found.items():
        print(f"after {mark:5} updates: {median:6.1f} ms [{low:.1f}, {high:.1f}] a poll")
    first, *_, last = found.values()
    print(f"the last over the first: {last[0] / first[0]:.2f}")
    path = write("polling", {"milliseconds": found, "last_over_first": last[0] / first[0]})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
