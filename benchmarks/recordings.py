"""Histories of healthy and faulty runs, recorded once and replayed for every set of rules.

    python -m benchmarks.recordings [--seeds 3] [--first-seed 1] [--faults base,sharp_router] [--rungs v3] [--jobs 2]

    python -m benchmarks.recordings --export RUN_ID --name nethack-v3-seed2 [--root mlruns]

Each run is this project's own trainer on a configuration of the fault suite, trained to its end without a watchdog. It
writes `results/histories/FAULT-RUNG-seedN.csv.gz`; a run whose file exists is not run again. `--export` writes the
history of a run that is in a store: `nethack-…` are runs of `experiments/nethack.yaml` (the brief's whole schedule),
`nethack_cap300-…` the same with at most 300 steps an episode. `benchmarks.learning` writes the histories of V3 and its
rungs itself: `score_paths_300k-…` is NetHackScore-v0 over 300,000 steps, `score_300k-…` the same without paths.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from benchmarks.report import RESULTS, circumstances
from benchmarks.suite import Fault, load_suite
from fallbacks.ladder import BUILT_IN
from pipeline.attempt.file import PendingFault
from pipeline.config import ExperimentConfig
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store

FOLDER = RESULTS / "histories"


def path_of(fault: str, rung: str, seed: int) -> Path:
    """File of a recording."""
    return FOLDER / f"{fault}-{rung}-seed{seed}.csv.gz"


def train(config: ExperimentConfig) -> pd.DataFrame:
    """Trains to the end in this process; returns every metric (columns) by step (index), as a store would get them."""
    from pipeline.training.trainer import Trainer

    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def report(metrics: dict[str, float], step: int) -> None:
            rows[step] = {name: value for name, value in metrics.items() if math.isfinite(value)}

        trainer = Trainer(config, Path(folder), report)
        trainer.faults = [PendingFault(index=index, fault=fault) for index, fault in enumerate(config.faults)]
        try:
            trainer.train()
        finally:
            trainer.close()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step").sort_index()


def write(frame: pd.DataFrame, path: Path) -> None:
    """Writes a history to a small file, with four significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, float_format="%.4g", compression={"method": "gzip", "mtime": 0})


def record(fault: Fault, rung: str, seed: int) -> str:
    """Records one run, unless its history exists; returns a line for the terminal, empty if nothing was run."""
    path = path_of(fault.name, rung, seed)
    if path.exists():
        return ""
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    began = time.monotonic()
    frame = train(BUILT_IN[rung].transform(fault.config(f"training.seed={seed}")))
    write(frame, path)
    return f"{fault.name} {rung} seed {seed}: {len(frame)} updates, {time.monotonic() - began:.0f} s"


def export(store: Store, run_id: str, path: Path) -> None:
    """Writes the history of a run that is in a store, in the form of a recording."""
    history = store.history(run_id, store.latest(run_id))
    columns = {name: pd.Series(dict(zip(*history.series(name), strict=True))) for name in history.metrics}
    frame = pd.DataFrame(columns).rename_axis("step").sort_index()
    write(frame[frame["update"].notna()].dropna(axis="columns", how="all"), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    suite = {name: fault for name, fault in load_suite().items() if fault.of_training}
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--faults", default=",".join(suite))
    parser.add_argument("--rungs", default="v3", help=f"of: {', '.join(BUILT_IN)}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--export", metavar="RUN_ID", help="run nothing, export this run")
    parser.add_argument("--name", help="name of the exported recording: FAULT-RUNG-seedN")
    parser.add_argument("--root", type=Path, default=Path("mlruns"), help="tracking.root of the exported run")
    asked = parser.parse_args()
    if asked.export:
        root = asked.root.resolve()
        export(Store(default_uri(root), root), asked.export, FOLDER / f"{asked.name}.csv.gz")
        return
    print(f"commit {circumstances()['commit']}")
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    # Processes are spawned, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = [
            pool.submit(record, suite[fault], rung, seed)
            for seed in seeds
            for fault in asked.faults.split(",")
            for rung in asked.rungs.split(",")
        ]
        for run in as_completed(runs):
            if line := run.result():
                print(line, flush=True)


if __name__ == "__main__":
    main()
