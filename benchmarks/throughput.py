"""Environment steps per second, end to end, with tracking: V3, every rung, and the bare environment.

    python -m benchmarks.throughput [--rounds 5] [--updates 4] [--out FILE]

All variants in one process on the same machine, in turn, round by round; a ratio is the median of the rounds' own
ratios, so that a machine whose speed drifts tells the same. 16 environments, batch and epochs as the rung has them.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import median_interval, write
from fallbacks.ladder import BUILT_IN
from pipeline.config import ExperimentConfig
from pipeline.environments.vector import Games, game_seeds
from pipeline.tracking import RUN_VARIABLE, URI_VARIABLE, Store, TrainerRun
from pipeline.training.trainer import Trainer

# The routing of the transition from the first episode on: sparsemax costs more than softmax.
BASE = ExperimentConfig().with_values({"phases.warmup_until": 0, "phases.transition_until": 4000})


def training(config: ExperimentConfig, store: Store, folder: Path, updates: int) -> Callable[[], float]:
    """A function that trains for some updates and returns the steps per second of just those."""
    run_id = store.start_parent(config)
    os.environ[URI_VARIABLE], os.environ[RUN_VARIABLE] = store.uri, run_id
    trainer = Trainer(config, folder / run_id, TrainerRun().log)

    def measure() -> float:
        began, steps = time.perf_counter(), trainer.steps
        trainer.train(updates)
        return (trainer.steps - steps) / (time.perf_counter() - began)

    return measure


def environment(config: ExperimentConfig, steps: int) -> Callable[[], float]:
    """Random actions, nothing else."""
    games, random = Games(config.environment, game_seeds(config.environment, 1)), np.random.default_rng(1)
    games.reset()

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            games.step(random.integers(0, games.num_actions, games.num_envs))
        return steps * games.num_envs / (time.perf_counter() - began)

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4, help="of 2048 steps, per round and variant")
    parser.add_argument("--threads", type=int, default=BASE.training.threads)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
        base = BASE.with_values({"training.threads": asked.threads})
        variants = {
            rung.name: training(rung.transform(base), store, folder, asked.updates) for rung in BUILT_IN.values()
        }
        variants["environment"] = environment(base, steps=500)
        for measure in variants.values():
            measure()  # warm-up
        rounds = [{name: measure() for name, measure in variants.items()} for _ in range(asked.rounds)]

    figures = {name: [each[name] for each in rounds] for name in variants}
    ratios = {f"{name}_over_v3": [each[name] / each["v3"] for each in rounds] for name in variants if name != "v3"}
    print(f"{'':14} steps/s [95 %]           over v3")
    for name, values in figures.items():
        median, low, high = median_interval(values)
        ratio = "" if name == "v3" else f"{median_interval(ratios[f'{name}_over_v3'])[0]:.2f}"
        print(f"{name:14} {median:7.0f} [{low:.0f}, {high:.0f}]".ljust(40), ratio)
    path = write(
        "throughput",
        {
            "threads": asked.threads,
            "steps_per_second": {name: median_interval(values)[0] for name, values in figures.items()},
            "intervals": {name: median_interval(values)[1:] for name, values in figures.items()},
            "ratios": {name: median_interval(values)[0] for name, values in ratios.items()},
            "ratio_intervals": {name: median_interval(values)[1:] for name, values in ratios.items()},
            "rounds": rounds,
        },
        asked.out,
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
