"""Environment steps per second, end to end, with tracking; and where V3's time goes.

    python -m benchmarks.throughput [--rounds 5] [--updates 4] [--out FILE]
    python -m benchmarks.throughput --report                                   only the page, from the results

All variants are measured in one run on the same machine, round by round. V3 is measured again beside each variant, and
a ratio is the median over such pairs, so that a drift of the machine's speed does not change it. There are 16
environments; batch and epochs are those of the rung (V3: 256 and 4).

| name | what it is |
|---|---|
| v3, freeze_gat, … | this project's trainer at each rung |
| v3_serial | V3 on one core, with its workers one after another in one process |
| ppo | this project's trainer with the plain policy |
| sb3 | Stable-Baselines3's PPO with its own small perceptron, no graph, no experts, in its own DummyVecEnv |
| sb3_v3 | the V3 network inside Stable-Baselines3, in DummyVecEnv |
| sb3_batched, sb3_v3_batched | the same with this project's vector environment, which encodes all games at once |
| environment | NetHack alone with random actions, on one core |
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from benchmarks.recordings import FOLDER
from benchmarks.report import RESULTS, mean, write
from benchmarks.sb3 import GamesVecEnv, build, dummy_games
from fallbacks.ladder import BUILT_IN
from pipeline.attempt.spool import Spool, SpoolWriter
from pipeline.compare.statistics import Interval
from pipeline.config import ExperimentConfig
from pipeline.environments.vector import Games, game_seeds
from pipeline.experiment.watchdog import Watchdog
from pipeline.policy.traced import Traced
from pipeline.tracking.store import Store
from pipeline.training import rollout
from pipeline.training.ppo import PPO
from pipeline.training.trainer import Trainer
from pipeline.training.worker import Worker

# The transition phase from the first episode on, because sparsemax costs more than softmax.
BASE = ExperimentConfig().with_values({"phases.warmup_until": 0, "phases.transition_until": 4000})
Measure = Callable[[], float]
"""Measures a variant once; returns environment steps per second."""
PAGE = RESULTS.parent.parent / "docs" / "speed.md"
NAMES = {
    "v3": "V3",
    **{name: f"rung `{name}`" for name in BUILT_IN if name != "v3"},
    "v3_serial": "V3 on one core (`training.parallel=false`)",
    "ppo": "this project's trainer with a plain policy: no graph, no experts",
    "sb3": "Stable-Baselines3's PPO with its small perceptron, in its own DummyVecEnv",
    "sb3_batched": "the same in this project's vector environment, which encodes all games at once",
    "sb3_v3": "the V3 network inside Stable-Baselines3, in DummyVecEnv",
    "sb3_v3_batched": "the same in this project's vector environment",
    "environment": "NetHack alone, random actions, one core",
}
PAGE_TEXT = """# Speed

`python -m benchmarks.throughput` makes this page (commit {commit:.9}, {cores} cores); do not edit it.

The table has environment steps per second, end to end, with the metrics written. All variants have 16 environments
and train in the transition phase, with the batch and epochs of their rung (V3: 256 and 4). V3 is measured again
beside each variant, so the ratios hold although the machine's speed drifts. Figures are means of {rounds} rounds
with 95 % intervals (Student's t).

| | steps/s | V3 is so many times as fast |
|---|---|---|
{table}

Where V3's time goes on one core:

| part | share |
|---|---|
{shares}

Another process delivers the metrics to MLflow and judges them. While V3 trains on both cores, with one poll every
{every:g} s, this takes {health:.1%} of one core's time, {share:.1%} of this machine's.

The last table shows what a long run costs from its beginning to its end: one run of V3 on NetHackScore-v0 (`python
-m benchmarks.learning`), medians, memory of the trainer and its worker. Other programs used the machine now and
then, and the times show it.

| environment steps | ms an update of 2048 steps | memory, MB |
|---|---|---|
{long_run}
"""


class Training:
    """A warmed-up trainer with a run in the store and its metrics in a folder, as in the pipeline."""

    def __init__(self, config: ExperimentConfig, store: Store, folder: Path) -> None:
        self.run_id = store.start_parent(config)
        self.trainer = Trainer(config, folder / self.run_id, SpoolWriter(Spool(folder / self.run_id)).write)
        self.measure(3)  # by then the policy is recorded for acting (`pipeline.policy.traced`)

    def measure(self, updates: int) -> float:
        """Environment steps per second over a number of updates."""
        began, steps = time.perf_counter(), self.trainer.steps
        self.trainer.train(updates)
        return (self.trainer.steps - steps) / (time.perf_counter() - began)


def sb3(config: ExperimentConfig, v3: bool, batched: bool, steps: int) -> Measure:
    """Measures Stable-Baselines3's PPO over `steps` steps; `v3`: with V3's network, `batched`: with `Games`."""
    games = (GamesVecEnv if batched else dummy_games)(config.environment, config.training.seed, v3)
    model = build(config, games, v3)

    def measure() -> float:
        began = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)
        return steps / (time.perf_counter() - began)

    return measure


def environment(config: ExperimentConfig, steps: int) -> Measure:
    """Measures the games alone, with random actions, over `steps` steps."""
    alone = config.environment.without_paths()
    games, random = Games(alone, game_seeds(alone, 1)), np.random.default_rng(1)
    games.reset()

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(steps // games.num_envs):
            games.step(random.integers(0, games.num_actions, games.num_envs))
        return steps / (time.perf_counter() - began)

    return measure


@contextmanager
def timed(seconds: dict[str, float], name: str, owner: Any, attribute: str) -> Iterator[None]:
    """Adds to `seconds[name]` the time that is spent in `owner.attribute` while the context lasts."""
    original = getattr(owner, attribute)

    def wrapper(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            seconds[name] += time.perf_counter() - began

    with mock.patch.object(owner, attribute, wrapper):
        yield


def profile(store: Store, folder: Path, updates: int) -> dict[str, float]:
    """Part → its share of V3's time on one core, with the workers one after another."""
    training = Training(BASE.with_values({"training.parallel": False}), store, folder)
    spent: dict[str, float] = defaultdict(float)
    began = time.perf_counter()
    with (
        timed(spent, "environment", Games, "step"),
        timed(spent, "graph building", rollout, "encode"),
        timed(spent, "acting", Traced, "__call__"),
        timed(spent, "update, forward", Worker, "recompute"),
        timed(spent, "update, backward", Worker, "backward"),
        timed(spent, "update", PPO, "update"),
        timed(spent, "tracking", training.trainer, "report"),
    ):
        training.measure(updates)
    whole = time.perf_counter() - began
    training.trainer.close()
    spent["update, optimiser and the rest"] = spent.pop("update") - spent["update, forward"] - spent["update, backward"]
    spent["collecting, the rest"] = whole - sum(spent.values())
    return {name: seconds / whole for name, seconds in spent.items()}


def watching(training: Training, store: Store, folder: Path, updates: int) -> float:
    """Seconds of CPU that delivering and judging metrics takes for each second of training."""
    watch = Watchdog(store, training.run_id, BASE.health.build(), Spool(folder / training.run_id))
    watch.poll()  # delivers what was reported during the warm-up
    trained = Event()

    def look() -> float:
        while not trained.wait(BASE.health.poll_seconds):
            watch.poll()
        return time.thread_time()

    with ThreadPoolExecutor(1) as pool:
        watched, began = pool.submit(look), time.perf_counter()
        try:
            training.measure(updates)
        finally:
            lasted = time.perf_counter() - began
            trained.set()
        return watched.result() / lasted


def long_run() -> str:
    """Rows of a table: time and memory in each fifth of a long run, to see whether a step costs the same at its end.

    Of the longest recordings it is the fastest, the one that other users of the machine slowed down least.
    """
    frames = [pd.read_csv(path, index_col="step") for path in FOLDER.glob("score_*k-v3-seed*.csv.gz")]
    if not frames:
        return ""

    def seconds(frame: pd.DataFrame) -> pd.Series:
        return frame["time/collect"] + frame["time/update"]

    recorded = max(frames, key=lambda frame: (len(frame), -seconds(frame).median()))
    spent = seconds(recorded)
    rows = [
        f"| {steps[0]:,} – {steps[-1]:,} | {1000 * spent[steps].median():,.0f} "
        f"| {recorded.memory_mb[steps].median():,.0f} |"
        for steps in np.array_split(recorded.index, 5)
    ]
    return "\n".join(rows)


def speeds(rounds: list[dict[str, dict[str, float]]]) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Steps per second of each variant; and of each other than V3, how many times as fast V3 was beside it."""
    figures = {"v3": mean([pair["v3"] for each in rounds for pair in each.values()])}
    figures |= {name: mean([each[name][name] for each in rounds]) for name in rounds[0]}
    return figures, {name: mean([each[name]["v3"] / each[name][name] for each in rounds]) for name in rounds[0]}


def render(result: dict[str, Any]) -> str:
    """The page as Markdown, from the content of `results/throughput.json` and the recordings."""
    figures, ratios = speeds(result["rounds"])
    table = []
    for name, words in NAMES.items():
        ours = "{:.2f} [{:.2f}, {:.2f}]".format(*ratios[name]) if name in ratios else ""
        table.append(f"| {words} | " + "{:,.0f} [{:,.0f}, {:,.0f}]".format(*figures[name]) + f" | {ours} |")
    shares, health = result["v3_shares"], result["health"]
    return PAGE_TEXT.format(
        commit=result["commit"],
        cores=result["machine"]["cores"],
        rounds=len(result["rounds"]),
        table="\n".join(table),
        shares="\n".join(
            f"| {name} | {share:.1%} |" for name, share in sorted(shares.items(), key=itemgetter(1), reverse=True)
        ),
        every=BASE.health.poll_seconds,
        health=health,
        share=health / result["machine"]["cores"],
        long_run=long_run(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=4, help="updates of 2048 steps, for each round and variant")
    parser.add_argument("--out", type=Path, default=None, help="results file; the page is then not written")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page from the results")
    asked = parser.parse_args()
    if asked.report:
        PAGE.write_text(render(json.loads((RESULTS / "throughput.json").read_text(encoding="utf-8"))), encoding="utf-8")
        return
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    steps = asked.updates * BASE.training.rollout_steps * BASE.environment.num_envs

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
        configs = {rung.name: rung.transform(BASE) for rung in BUILT_IN.values()}
        configs["v3_serial"] = BASE.with_values({"training.parallel": False})
        configs["ppo"] = BASE.with_values({"policy.kind": "ppo"})
        trainings = {name: Training(config, store, folder) for name, config in configs.items()}
        variants: dict[str, Measure] = {
            name: partial(training.measure, asked.updates) for name, training in trainings.items()
        }
        others: dict[str, Measure] = {
            "sb3" + "_v3" * v3 + "_batched" * batched: sb3(BASE, v3, batched, steps)
            for v3 in (False, True)
            for batched in (False, True)
        }
        others["environment"] = environment(BASE, steps)
        for measure in others.values():
            measure()  # warm-up
        variants |= others
        ours = variants.pop("v3")
        rounds = [
            {name: {"v3": ours(), name: measure()} for name, measure in variants.items()} for _ in range(asked.rounds)
        ]
        shares = profile(store, folder, asked.updates)
        health = watching(trainings["v3"], store, folder, 10 * asked.updates)
        parallel = trainings["v3"].trainer.workers.parallel
        for training in trainings.values():
            training.trainer.close()

    figures, ratios = speeds(rounds)
    print(f"{'':14} steps/s [95 %]          v3 over it [95 %]")
    for name, (middle, low, high) in figures.items():
        ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*ratios[name]) if name in ratios else ""
        print(f"{name:14} {middle:7.0f} [{low:.0f}, {high:.0f}]".ljust(38), ratio)
    print("\nV3 on one core, shares of the time:")
    for name, share in shares.items():
        print(f"  {name:32} {100 * share:5.1f} %")
    print(f"  beside it, delivering and judging the metrics: {health:.1%} of a core")
    path = write(
        "throughput",
        {
            "workers_beside": parallel,
            "steps_per_second": figures,
            "v3_over": ratios,
            "v3_shares": shares,
            "health": health,
            "rounds": rounds,
        },
        asked.out,
    )
    print(f"written to {path}")
    if asked.out is None:
        PAGE.write_text(render(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
