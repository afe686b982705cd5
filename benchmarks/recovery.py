"""Does the ladder cure faults, at which rung, at what cost, and how does it compare with other strategies?

    python -m benchmarks.recovery [--seeds 2] [--first-seed 21] [--faults sharp_router,…] [--strategies …] [--jobs 2]
    python -m benchmarks.recovery --base scout|score [--steps 240000] …
    python -m benchmarks.recovery [--base scout|score] --report

Every fault of the suite is trained with the watchdog on, and the ladder itself decides what follows a verdict:

| strategy | after a failure |
|---|---|
| remedies | each rung's remedy, then the next rung (the default) |
| remedies_alone | the remedies of v3, as many as the ladder has rungs |
| ladder | the rungs in their order, warm-started, without remedies, like all that follow (`ladder.remedies=0`) |
| guided | the same, without the rungs that cannot remove the cause of the verdict (`ladder.guided`) |
| restart | the same configuration with a new seed, from scratch, as often as the ladder has rungs |
| random_order | the rungs below v3 in a random order, warm-started (one order for all faults of a seed up to 26) |
| cold | the rungs in their order, each from scratch |
| stacked | the rungs in their order, each on top of those before (`ladder.cumulative`) |
| oracle | none follows: the mildest rung that removes the cause is trained from the beginning (with `--base`) |
| no_watchdog | the attempts of `ladder`, each judged only at its end (computed, not run again) |

An attempt is this project's trainer, its rules and its ladder in one process. The verdict is the one that the watchdog
gives when it reads the same metrics from the store. Strategies that reach the same attempt (configuration and starting
checkpoint) share it. The cost is counted in environment steps and compared with an oracle, which knows the cure and
trains one attempt from scratch. Faults of the infrastructure go through `ladder run`, with store and real processes.

Each fault and seed writes `results/recovery/FAULT-seedN.json`; a strategy that is in the file is not run again.

`--base scout` and `--base score` ask what is *retained* of the score of a game (benchmarks/retained.py).
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from benchmarks.report import RESULTS, circumstances, mean, percent, share, write
from benchmarks.suite import FOLDER as FAULTS
from benchmarks.suite import Fault, load_suite
from fallbacks.ladder import End, Ladder, Plan
from pipeline.attempt.checkpoint_files import fingerprint, usable
from pipeline.attempt.file import PendingFault
from pipeline.attempt.record import Attempt
from pipeline.config import RUNGS, ExperimentConfig
from pipeline.experiment_file import read_yaml
from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.verdict import Verdict

STRATEGIES = ("remedies", "remedies_alone", "ladder", "guided", "restart", "random_order", "cold", "stacked", "oracle")
FOLDER = RESULTS / "recovery"
SHORTER = ("training.steps=24576", "phases.warmup_until=24", "phases.transition_until=60")
"""Overrides for runs of 48 updates: the suite's 40,000 steps are too long for so many attempts."""


class _Stopped(Exception):
    """Ends a training when its metrics fail a rule."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


class Laboratory:
    """Runs the attempts of one fault and seed, each only once. `folder`: for their checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: dict[str, tuple[Attempt, int]] = {}
        self.histories: dict[str, History] = {}
        """Run id of an attempt → all that it has logged."""

    def attempt(
        self, plan: Plan, number: int, faults: tuple[PendingFault, ...], most: int | None = None
    ) -> tuple[Attempt, int]:
        """The attempt that a plan describes, and the environment steps that it played; trained if it is new.

        Args:
            plan: the ladder's plan for the attempt.
            number: the attempt's number.
            faults: faults that strike during the attempt.
            most: the environment steps that it may play; it ends with the update that reaches them. None: no bound.
        """
        start = plan.warm_start
        config = plan.config.model_dump(mode="json", exclude={"ladder"})
        key = json.dumps([config, start and [start.checkpoint, start.carry.model_dump()], bool(faults), most])
        if key not in self._done:
            self._done[key] = self._train(plan, number, faults, most)
        return self._done[key]

    def _train(
        self, plan: Plan, number: int, faults: tuple[PendingFault, ...], most: int | None
    ) -> tuple[Attempt, int]:
        from pipeline.training.trainer import Trainer

        run_id = f"{len(self._done):04d}"
        history, rules, updates = History(), plan.config.health.build(), 0
        an_update = plan.config.training.rollout_steps * plan.config.environment.num_envs
        self.histories[run_id] = history

        def report(metrics: dict[str, float], step: int) -> None:
            nonlocal updates
            updates += 1
            for name, value in metrics.items():
                if math.isfinite(value):
                    history.add(name, step, value)
            if (verdict := judge(history, rules)) is not None:
                raise _Stopped(verdict)
            if most is not None and updates * an_update >= most:
                trainer.stop()

        names = [*RUNGS, plan.rung.name]  # the games depend on the rung, not on how many attempts came before
        trainer = Trainer(plan.config, self.folder / run_id, report, salt=names.index(plan.rung.name))
        trainer.faults = list(faults)
        verdict = Verdict(name="healthy")
        try:
            if plan.warm_start is not None:
                trainer.start_from(plan.warm_start)
            trainer.train()
        except _Stopped as stopped:
            verdict = stopped.verdict
        finally:
            trainer.close()
        attempt = Attempt(
            number=number,
            rung=plan.rung.name,
            config=plan.config,
            run_id=run_id,
            verdict=verdict,
            checkpoints=usable(self.folder / run_id / "checkpoints", fingerprint(plan.config))[0],
            warm_start=plan.warm_start,
            remedy=plan.remedy,
        )
        return attempt, updates * an_update


def applies(strategy: str, fault: Fault) -> bool:
    """Whether a fault can be treated like this: an oracle needs a rung that removes the cause."""
    return strategy != "oracle" or bool(fault.cured_by)


def configuration(fault: Fault, strategy: str, seed: int, base: ExperimentConfig | None = None) -> ExperimentConfig:
    """The fault's experiment with the strategy's rungs and options. `base`: the experiment, if not the suite's."""
    below = list(RUNGS[1:])
    rungs: list[Any] = list(RUNGS)
    if strategy == "random_order":
        drawn = np.random.default_rng([seed, zlib.crc32(fault.name.encode())])  # each fault has its own order
        rungs = ["v3", *drawn.permutation(below).tolist()]
    if strategy == "remedies_alone":
        rungs = ["v3"]
    if strategy == "oracle":
        rungs = [min(fault.cured_by, key=RUNGS.index)]
    config = base or fault.config(*SHORTER, f"training.seed={seed}")
    if strategy == "restart":
        seeds = [seed + k * 1000 for k in range(1, len(RUNGS))]
        again = [{"name": f"seed_{each}", "set": {"training.seed": each}} for each in seeds]
        rungs = ["v3", *again]
    return config.with_values(
        {
            "ladder.rungs": rungs,
            "ladder.warm_start": strategy not in ("cold", "restart"),
            "ladder.cumulative": strategy == "stacked",
            "ladder.guided": strategy == "guided",
            "ladder.remedies": {"remedies": 1, "remedies_alone": len(below)}.get(strategy, 0),
        }
    )


def go_down(laboratory: Laboratory, config: ExperimentConfig, most: int | None = None) -> dict[str, Any]:
    """Runs one strategy to its end; returns its outcome, and the attempts' rungs, verdicts and costs.

    `most`: the environment steps of all attempts together. Where they are spent, the last attempt is what was reached.
    """
    ladder, attempts, costs = Ladder(config), list[Attempt](), list[int]()
    step: Plan | End = ladder.first()
    while isinstance(step, Plan):
        left = None if most is None else most - sum(costs)
        if left is not None and left <= 0:
            step = End("exhausted", "all steps are spent")
            break
        pending = tuple(PendingFault(index=k, fault=fault) for k, fault in enumerate(config.faults))
        attempt, cost = laboratory.attempt(step, len(attempts), () if attempts else pending, left)
        attempts.append(attempt)
        costs.append(cost)
        step = ladder.after(attempts)
    return {
        "outcome": step.outcome,
        "settled_rung": step.settled_rung,
        "verdicts": [attempt.verdict.name for attempt in attempts],
        "rungs": [attempt.rung for attempt in attempts],
        "remedies": [attempt.remedy for attempt in attempts],
        "runs": [attempt.run_id for attempt in attempts],
        "warm": [attempt.warm_start is not None for attempt in attempts],
        "steps": costs,
    }


def run_infrastructure(fault: Fault, seed: int) -> dict[str, Any]:
    """Runs `ladder run` on the fault's file in a folder of its own; returns its outcome and its attempts."""
    from pipeline.tracking.access import default_uri
    from pipeline.tracking.runs import AttemptRun
    from pipeline.tracking.store import Store

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file = root / "experiment.yaml"
        OmegaConf.save(OmegaConf.merge(read_yaml(FAULTS / "base.yaml"), fault.values), file)
        words = [str(file), f"tracking.root={root}", f"training.seed={seed}", *SHORTER]
        done = subprocess.run([sys.executable, "-m", "pipeline", "run", *words], stdout=subprocess.DEVNULL, check=False)
        store = Store(default_uri(root), root)
        ((_, runs),) = store.experiments()
        attempts = sorted((run for run in runs if isinstance(run, AttemptRun)), key=lambda run: run.start_time)
        gap = [(after.start_time - (before.end_time or 0)) / 1000 for before, after in pairwise(attempts)]
    return {
        "outcome": "healthy" if done.returncode == 0 else f"exit {done.returncode}",
        "settled_rung": attempts[-1].rung,
        "verdicts": [each.verdict_name for each in attempts],
        "rungs": [each.rung for each in attempts],
        "seconds_between_attempts": gap,
    }


def examine(name: str, seed: int, strategies: tuple[str, ...]) -> str:
    """Runs the strategies that have no result yet on one fault and seed; returns a line for the terminal."""
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    fault, path = load_suite()[name], FOLDER / f"{name}-seed{seed}.json"
    found = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"fault": name, "seed": seed, **circumstances()}
    )
    results = found.setdefault("strategies", {})
    missing = [each for each in strategies if each not in results and applies(each, fault)]
    if not fault.of_training:
        missing = [each for each in missing if each == "ladder"]
    if not missing:
        return ""
    began, folder = time.monotonic(), Path(tempfile.mkdtemp())
    laboratory = Laboratory(folder)
    for each in missing:
        if fault.of_training:
            results[each] = go_down(laboratory, configuration(fault, each, seed))
        else:
            results[each] = run_infrastructure(fault, seed)
    shutil.rmtree(folder, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    words = ", ".join(f"{each} {results[each]['settled_rung'] or results[each]['outcome']}" for each in missing)
    return f"{name} seed {seed}: {words} ({time.monotonic() - began:.0f} s)"


def played(result: dict[str, Any]) -> int:
    """Environment steps of all attempts of a strategy."""
    return sum(result["steps"])


def full_cost(result: dict[str, Any], whole: int) -> int:
    """Environment steps of the same attempts if each failed one had run to its end, `whole` steps."""
    failed = sum(verdict != "healthy" for verdict in result["verdicts"])
    return failed * whole + sum(
        steps for steps, verdict in zip(result["steps"], result["verdicts"], strict=True) if verdict == "healthy"
    )


def settles_mildly(fault: Fault, rung: str | None) -> bool:
    """Whether no milder rung removes the cause as well.

    A lower rung than needed gives up a part of the model for nothing. A restart that ends healthy keeps the whole
    model, so it counts as mild.
    """
    return rung is not None and (
        rung not in RUNGS or RUNGS.index(rung) <= min(RUNGS.index(each) for each in fault.cured_by)
    )


def order_matters(fault: Fault) -> bool:
    """Whether a rung other than `v2_router_gat` removes the cause; only then can a strategy settle too far down."""
    return any(rung != "v2_router_gat" for rung in fault.cured_by)


def has_struck(strategies: dict[str, Any]) -> bool:
    """Whether the first attempt, which all strategies share, failed; if it did not, there was nothing to cure."""
    return any(result.get("verdicts", ["healthy"])[0] != "healthy" for result in strategies.values())


def report() -> Path:
    """Prints the table, and writes `results/recovery.json`; returns its path."""
    suite = load_suite()
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    whole = suite["base"].config(*SHORTER).training.steps or 0
    rows: dict[str, dict[str, Any]] = {}
    curable = [
        each
        for each in files
        if suite[each["fault"]].cured_by and suite[each["fault"]].of_training and has_struck(each["strategies"])
    ]
    heads = ("curable faults", "runs", "ends healthy", "mildest cure or above", "where order matters", "cost", "more")
    print("{:14} {:>5} {:18} {:21} {:21} {:21} {}".format(*heads))
    for strategy in (*STRATEGIES, "no_watchdog"):
        source = "ladder" if strategy == "no_watchdog" else strategy
        runs = [each for each in curable if {source, "ladder"} <= each["strategies"].keys()]
        if not runs:
            continue
        healthy = [each["strategies"][source]["outcome"] == "healthy" for each in runs]
        cost = partial(full_cost, whole=whole) if strategy == "no_watchdog" else played
        costs = [cost(each["strategies"][source]) for each in runs]
        settled = [settles_mildly(suite[each["fault"]], each["strategies"][source]["settled_rung"]) for each in runs]
        chosen = [mildly for each, mildly in zip(runs, settled, strict=True) if order_matters(suite[each["fault"]])]
        beside = [played(each["strategies"]["ladder"]) for each in runs]
        over = mean([each / whole for each in costs])
        more = mean([(its - ladders) / whole for its, ladders in zip(costs, beside, strict=True)])
        rows[strategy] = {
            "runs": len(runs),
            "healthy": share(sum(healthy), len(healthy)),
            "mildest": share(sum(settled), len(settled)),
            "mildest_where_order_matters": share(sum(chosen), len(chosen)),
            "cost_over_oracle": over,
            "more_than_the_ladder": more,
        }
        print(
            f"{strategy:14} {len(runs):5} {percent(rows[strategy]['healthy']):18} "
            f"{percent(rows[strategy]['mildest']):21} "
            f"{percent(rows[strategy]['mildest_where_order_matters']):21} "
            f"{over[0]:.2f} [{over[1]:.2f}, {over[2]:.2f}]     {more[0]:+.2f} [{more[1]:+.2f}, {more[2]:+.2f}]"
        )
    print("\nwith the ladder:")
    for name in suite:
        for each in (one for one in files if one["fault"] == name and "ladder" in one["strategies"]):
            result = each["strategies"]["ladder"]
            story = " → ".join(
                f"{rung} {verdict}" for rung, verdict in zip(result["rungs"], result["verdicts"], strict=True)
            )
            print(f"  {name:24} {each['seed']:3}  {story}")
    return write("recovery", {"oracle_steps": whole, "curable": rows, "runs": files})


def main() -> None:
    from benchmarks import retained

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    suite = [name for name, fault in load_suite().items() if name != "base"]
    parser.add_argument("--base", choices=("suite", *retained.GAMES), default="suite")
    parser.add_argument("--steps", type=int, help="of all attempts together; not of the suite")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=21)
    parser.add_argument("--faults", default=",".join(suite))
    parser.add_argument("--strategies", default=None, help=f"of: {', '.join(STRATEGIES)}")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="run nothing, report the results that exist")
    asked = parser.parse_args()
    game = retained.GAMES.get(asked.base)
    steps = asked.steps or (game.steps if game else 0)
    strategies = tuple((asked.strategies or ",".join(retained.STRATEGIES if game else STRATEGIES)).split(","))
    for given, known, option in (
        (asked.faults.split(","), suite, "--faults"),
        (strategies, STRATEGIES, "--strategies"),
    ):
        if unknown := sorted(set(given) - set(known)):
            parser.error(f"{option}: unknown {', '.join(unknown)}; allowed: {', '.join(known)}")
    if not asked.report:
        work = partial(retained.examine, game=game, steps=steps) if game else examine
        names = [each for each in asked.faults.split(",") if not game or load_suite()[each].of_training]
        if game:  # what the others are measured by comes first
            names.insert(0, retained.CONTROL)
        with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            runs = [
                pool.submit(work, name, seed, strategies)
                for seed in range(asked.first_seed, asked.first_seed + asked.seeds)
                for name in names
            ]
            for run in as_completed(runs):
                if line := run.result():
                    print(line, flush=True)
    print(f"written to {retained.report(game, steps) if game else report()}")


if __name__ == "__main__":
    main()
