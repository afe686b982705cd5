"""What each phase of the brief's schedule does: its learning rates, how far the policy moves, and what the score gains.

    python -m benchmarks.schedule

It reads the recordings of `experiments/nethack.yaml` under the present learning rates, `nethack-v3-seed21` and on
(`python -m benchmarks.recordings --export`), and writes `results/schedule.json`. The gain of a phase is the slope of
the score over the episodes, by least squares with the number of games as weights. Its interval is over seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.recordings import FOLDER
from benchmarks.report import mean, write
from pipeline.experiment_file import load_experiment

SEEDS = (21, 22, 23)
EXPERIMENT = "experiments/nethack.yaml"


def phases() -> dict[str, tuple[int, int]]:
    """Phase → its first and last episode."""
    config = load_experiment(EXPERIMENT, [])
    until, then, end = config.phases.warmup_until, config.phases.transition_until, config.training.episodes
    return {"warmup": (0, until), "transition": (until, then), "finetune": (then, end)}


def examine(frame: pd.DataFrame, first: int, last: int) -> dict[str, float]:
    """Figures of the updates of a run in which its episodes `first` … `last` ended.

    `score` and `score_then`: means of the first and of the last 500 games. `gain`: score per 1000 episodes. `rate` and
    `rate_then`: learning rates at the phase's beginning, after the optimiser's own warm-up, and at its end. `kl` and
    `clipped`: medians over the updates.
    """
    ended = frame["episodes"].diff().fillna(frame["episodes"])
    inside = frame["episodes"].gt(first) & frame["episodes"].le(last)
    part, games = frame[inside], ended[inside]
    scored = games.gt(0) & part["score"].notna()
    episodes, score, weight = part["episodes"][scored], part["score"][scored], games[scored]
    slope, _ = np.polyfit(episodes, score, 1, w=np.sqrt(weight))
    begins, ends = episodes <= first + 500, episodes > last - 500
    return {
        "rate": float(part["learning_rate"].iloc[: len(part) // 4].max()),
        "rate_then": float(part["learning_rate"].iloc[-1]),
        "kl": float(part["approx_kl"].median()),
        "clipped": float(part["clip_fraction"].median()),
        "score": float(np.average(score[begins], weights=weight[begins])),
        "score_then": float(np.average(score[ends], weights=weight[ends])),
        "gain": float(1000 * slope),
    }


def main() -> None:
    frames = {seed: pd.read_csv(FOLDER / f"nethack-v3-seed{seed}.csv.gz", index_col="step") for seed in SEEDS}
    found: dict[str, dict[str, Any]] = {}
    for name, (first, last) in phases().items():
        runs = {seed: examine(frame, first, last) for seed, frame in frames.items()}
        found[name] = {key: mean([run[key] for run in runs.values()]) for key in next(iter(runs.values()))}
        of = found[name]
        print(
            f"{name:11} rate {of['rate'][0]:.2g} → {of['rate_then'][0]:.2g}, KL {of['kl'][0]:.2g}, "
            f"clipped {100 * of['clipped'][0]:.2f} %, score {of['score'][0]:.1f} → {of['score_then'][0]:.1f}, "
            "gain {:+.1f} [{:+.1f}, {:+.1f}] per 1000 episodes".format(*of["gain"])
        )
        found[name]["runs"] = runs
    print(f"written to {write('schedule', {'phases': found})}")


if __name__ == "__main__":
    main()
