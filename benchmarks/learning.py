"""Does V3 learn, and does each of its parts help? Several seeds, equal environment steps, the same step cap.

    python -m benchmarks.learning [--seeds 3] [--budget 1000000] [--variants v3,ppo] [--environment NetHackScore-v0]
    python -m benchmarks.learning --report          only the pages, from the results that exist

Except for SB3's runs and for what does not learn, each run is an experiment of this pipeline (experiments/score.yaml).
Its failing rules only warn, so that all runs have the same length. Each run writes a file of its own under
`results/learning/`, and V3 and its rungs also write their histories for `benchmarks.detection`. A run whose file exists
is not run again. A run's figure is the mean over its last 300 episodes of the game's own score (for NetHackScout-v0: of
the task's own return).
Statistics are over runs, as in rliable (Agarwal et al. 2021, https://arxiv.org/abs/2108.13264).
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning_page import HEADER, NOW, WITHOUT_PATHS, Page, draw, figure, render, table
from benchmarks.recordings import export, path_of
from benchmarks.report import circumstances
from benchmarks.scripted import scripted_episodes
from fallbacks.ladder import BUILT_IN
from pipeline.config import PREFLIGHT_ITEMS, EnvironmentSection, ExperimentConfig
from pipeline.environments.nethack import Episode
from pipeline.environments.vector import random_episodes
from pipeline.experiment_file import load_experiment
from pipeline.health.rule_sets import RULE_SETS
from pipeline.tracking.access import tracking_root, tracking_uri
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store

EXPERIMENT = "experiments/score.yaml"
LAST = 300
"""Number of last episodes over which a run is judged."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "random": (),
    "ppo": ("policy.kind=ppo",),
    "ppo_no_mask": ("policy.kind=ppo", "environment.action_mask=false"),
    "ppo_paths": ("policy.kind=ppo", "environment.paths=stats"),
    "sb3": (),
    "script": (),
    "v3": (),
    "v3_shared": ("policy.shared_size=64",),
    "v3_one_expert": ("policy.experts=[general]", "policy.expert_size=256"),
    "v3_no_graph": ("policy.graph=false",),
    "v3_no_paths": ("environment.paths=none",),
    "v3_no_mask": ("environment.action_mask=false",),
    "v3_no_phases": ("phases.warmup_until=0", "phases.transition_until=0", "phases.finetune.learning_rate_factor=0.5"),
    "v3_centred_reward": ("training.reward_centring=true",),
    "v3_little_diversity": ("training.diversity_coef=0.001",),
    "freeze_gat": ("ladder.rungs=[freeze_gat]",),
    "softmax_only": ("ladder.rungs=[softmax_only]",),
    "two_experts": ("ladder.rungs=[two_experts]",),
    "v2_router_gat": ("ladder.rungs=[v2_router_gat]",),
}  # fmt: skip
Play = Callable[[EnvironmentSection, int, int], list[Episode]]
"""Plays a number of episodes of an environment, from a seed."""
UNTRAINED: dict[str, Play] = {"random": random_episodes, "script": scripted_episodes}
NAMED = ("environment.id=", "training.seed=", "training.steps=")
"""What names a run's experiment beside its variant, so that runs may be made side by side."""
JUDGED = ("score", "episode/task_return", "episode/depth")
ROUTING = ("alpha_entropy", "specialisation")


def settings(environment: str, budget: int, seed: int) -> list[str]:
    """Overrides of the experiment's file: the schedule is scaled with the budget, at 800 steps an episode.

    The limit in episodes is higher, so that the steps end a run, whatever the length of its episodes.
    """
    return [
        "ladder.rungs=[v3]",
        f"environment.id={environment}",
        "environment.random_episodes=2",  # random play is a variant of its own
        f"training.seed={seed}",
        f"training.steps={budget}",
        f"training.episodes={budget // 500}",
        f"phases.warmup_until={budget // 4000}",
        f"phases.transition_until={budget * 3 // 4000}",
        "tracking.root=mlruns/learning",
        *(f"health.override.{rule.name}.action=warn" for rule in RULE_SETS["v3"]),
        f"preflight.accept=[{','.join(PREFLIGHT_ITEMS)}]",  # a variant is what differs
    ]


def run_pipeline(variant: str, overrides: list[str]) -> dict[str, Any]:
    """Runs one experiment with a single rung; returns what its only attempt logged."""
    words = [*overrides, *VARIANTS[variant]]
    words.append(f"experiment.name=learning {variant} {' '.join(word for word in overrides if word.startswith(NAMED))}")
    config = load_experiment(Path(EXPERIMENT), words)
    command = [sys.executable, "-m", "pipeline", "run", EXPERIMENT, *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # a run that was cut off has no result
    store = Store(tracking_uri(config), tracking_root(config))
    runs = next(runs for experiment, runs in store.experiments() if experiment.name == config.experiment.name)
    attempt = next(run for run in runs if isinstance(run, AttemptRun))
    if variant in BUILT_IN and attempt.verdict_name == "healthy":
        export(store, attempt.run_id, history_path(variant, config))
    return of_attempt(store, attempt, config.policy.experts)


def history_path(variant: str, config: ExperimentConfig) -> Path:
    """File of the run's history among the recordings, such as `score_paths_300k-v3-seed1.csv.gz`."""
    task = config.environment.id.removeprefix("NetHack").removesuffix("-v0").lower()
    if config.environment.paths != "none":
        task += "_paths"
    return path_of(f"{task}_{(config.training.steps or 0) // 1000}k", variant, config.training.seed)


def of_attempt(store: Store, attempt: AttemptRun, experts: Sequence[str]) -> dict[str, Any]:
    """What a finished attempt logged: its verdict, its figures, its curve, and metrics of its router."""
    usage = [f"expert_usage/{name}" for name in experts]
    history = store.history(attempt.run_id, ["episodes", *JUDGED, *ROUTING, *usage])
    steps, counted = history.series("episodes")
    episodes = dict(zip(steps.tolist(), np.diff(counted, prepend=0.0).tolist(), strict=True))
    at, judged = history.aligned(JUDGED)
    rows = np.column_stack([at, [episodes[step] for step in at.tolist()], *judged.values()])
    tail = {}
    for name in (*ROUTING, *usage):
        at, values = history.series(name)
        if len(at):
            tail[name] = float(np.median(values[at > 0.8 * steps[-1]]))
    return {
        "verdict": attempt.verdict_name,
        **summary(rows),
        "last_fifth": tail,
        "specialisation": _thin(np.column_stack(history.series("specialisation"))),
    }


def run_sb3(config: ExperimentConfig) -> dict[str, Any]:
    """Trains SB3's PPO in this process; returns its figures and its curve."""
    from benchmarks.sb3 import GamesVecEnv, build

    games = GamesVecEnv(config.environment, config.training.seed, graph=False)
    build(config, games).learn(config.training.steps or 0)
    rows = [(steps, 1, each.score, each.task_return, each.depth) for steps, each in games.episodes]
    return {"verdict": "", **summary(np.array(rows))}


def run_untrained(config: ExperimentConfig, play: Play) -> dict[str, Any]:
    """Plays what does not learn; returns its figures and its curve."""
    episodes = play(config.environment, LAST, config.training.seed)
    rows = [(index, 1, each.score, each.task_return, each.depth) for index, each in enumerate(episodes)]
    return {"verdict": "", **summary(np.array(rows))}


def summary(rows: np.ndarray) -> dict[str, Any]:
    """Means over the last 300 episodes, and a curve of means over 100 episodes.

    `rows`: (step, number of episodes that ended, their mean score, return and depth) each.
    """
    score, task_return, depth = _newest(rows, LAST)
    curve = [
        [int(step), *(round(float(x), 2) for x in _newest(rows[rows[:, 0] <= step], 100))]
        for step in np.linspace(rows[0, 0], rows[-1, 0], 60)
    ]
    return {
        "score": float(score),
        "task_return": float(task_return),
        "depth": float(depth),
        "episodes": int(rows[:, 1].sum()),
        "curve": curve,
    }


def _newest(rows: np.ndarray, episodes: int) -> np.ndarray:
    """Mean score, return and depth (3,) of the last rows, at least one, that hold at most `episodes` episodes."""
    since = np.cumsum(rows[::-1, 1])[::-1]
    last = rows[since <= max(episodes, since[-1])]
    return np.average(last[:, 2:5], axis=0, weights=last[:, 1])


def _thin(series: np.ndarray, points: int = 40) -> list[list[float]]:
    """At most `points` evenly spread rows of (step, value), for JSON."""
    chosen = series[np.linspace(0, len(series) - 1, min(points, len(series))).astype(int)] if len(series) else series
    return [[int(step), round(float(value), 4)] for step, value in chosen]


def measure(variant: str, environment: str, budget: int, seed: int) -> Path:
    """Runs one variant with one seed, unless its result exists; returns the result's file."""
    path = NOW.folder / environment / f"{variant}-{budget}-seed{seed}.json"
    if path.exists():
        return path
    overrides = settings(environment, budget, seed)
    config = load_experiment(Path(EXPERIMENT), overrides)
    began = time.monotonic()
    where = circumstances()
    if variant in UNTRAINED:
        result = run_untrained(config, UNTRAINED[variant])
    elif variant == "sb3":
        result = run_sb3(config)
    else:
        result = run_pipeline(variant, overrides)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"variant": variant, "environment": environment, "steps": budget, "seed": seed}
    content = {**about, "minutes": round((time.monotonic() - began) / 60, 1), **where, **result}
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(f"{variant:26} seed {seed}: {figure(content):6.1f}  ({content['minutes']} min)", flush=True)
    return path


def results(page: Page) -> dict[tuple[str, int], dict[str, list[dict[str, Any]]]]:
    """(environment, steps) → variant → its runs; for each environment the longest runs come first."""
    found: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(page.folder.glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["environment"], result["steps"]][result["variant"]].append(result)
    return dict(sorted(found.items(), key=lambda each: (each[0][0], -each[0][1])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=1_000_000, help="environment steps of a run")
    parser.add_argument("--variants", default="random,v3,ppo,sb3", help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--environment", default="NetHackScore-v0")
    parser.add_argument("--report", action="store_true", help="run nothing, write only the pages")
    asked = parser.parse_args()
    variants = asked.variants.split(",")
    if unknown := set(variants) - VARIANTS.keys():
        parser.error(f"--variants: unknown {', '.join(sorted(unknown))}; allowed: {', '.join(VARIANTS)}")
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    if not asked.report:
        for seed in range(1, asked.seeds + 1):
            for variant in variants:
                measure(variant, asked.environment, asked.budget, seed)
    for (environment, steps), runs in results(NOW).items():
        print(f"\n{environment}, {steps:,} steps: mean of the last {LAST} episodes")
        for row in (HEADER, *table(runs)):
            print("  {:20} {:>5}  {:20} {:18} {}".format(*row))
    for page in (NOW, WITHOUT_PATHS):
        found = results(page)
        draw(found, page.path.with_suffix(".png"))
        page.path.write_text(render(page, found), encoding="utf-8")
        print(f"written to {page.path}")


if __name__ == "__main__":
    main()
