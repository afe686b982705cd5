"""Does a study find the constrained optimum, and sooner than random search? Several seeds, equal numbers of trials.

    python -m benchmarks.tuning [--seeds 10] [--budget 60]

The function and its unhealthy region are those of `benchmarks/synthetic.py`. Asking, telling, the constraint and the
storage are those of `ladder tune`. Only the evaluation is a function call instead of a trainer's process, which would
log the same numbers (tests/end_to_end/test_tune.py runs that process). Trials whose training fails are pruned without a
value.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.report import mean, write
from benchmarks.synthetic import BORDER, OPTIMUM, SPACE, healthy, score
from pipeline.tuning.results import ranked
from pipeline.tuning.storage import open_storage, turn
from pipeline.tuning.study import StudySection
from pipeline.tuning.trials import Outcome, Trials, feasible
from pipeline.tuning.validation import compare
from pipeline.tuning.worker import log, work

SAMPLERS = ("tpe", "random")
BEST = score(OPTIMUM)


def evaluate(trial: optuna.Trial) -> Outcome:
    """Evaluates a trial without a process: pruned in the unhealthy region, else complete with its score."""
    if not healthy(trial.params):
        return Outcome("pruned", "gradient_explosion", depth=1)
    return Outcome("complete", values=(score(trial.params),), errors=(None,))


def study(sampler: str, seed: int, trials: int) -> dict[str, Any]:
    """Runs one study in a storage of its own; returns its best trial and its curve."""
    settings = StudySection.model_validate({"space": SPACE, "sampler": sampler, "seed": seed, "trials": trials})
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'optuna.db'}"
        with turn(url):
            storage = open_storage(url, settings.heartbeat_seconds)
            made = optuna.create_study(study_name="benchmark", storage=storage, direction="maximize")
        work(
            Trials(
                made,
                storage,
                budget=trials,
                distributions=settings.distributions,
                sampler=settings.make_sampler,
                worker="benchmark",
            ),
            evaluate,
        )
        done = made.get_trials()
    best = ranked(done, "maximize")[0]
    values = [trial.value if feasible(trial) and trial.value is not None else -np.inf for trial in done]
    curve = np.maximum.accumulate(values)
    return {
        "sampler": sampler,
        "seed": seed,
        "best": best.value,
        "learning_rate": best.params["training.learning_rate"],
        "unhealthy": sum(not feasible(trial) for trial in done) / len(done),
        "best_so_far": [None if np.isneginf(value) else round(float(value), 2) for value in curve],
    }


def _first(best_so_far: list[float | None], reached: float) -> int | None:
    """Number of trials until the best is at least `reached`; None if it never is."""
    return next((i + 1 for i, best in enumerate(best_so_far) if best is not None and best >= reached), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=60, help="trials of a study")
    parser.add_argument("--out", type=Path, help="results file, instead of benchmarks/results/tuning.json")
    asked = parser.parse_args()
    log.setLevel(logging.WARNING)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SAMPLERS}
    for seed in range(1, asked.seeds + 1):
        for name in SAMPLERS:
            runs[name].append(study(name, seed, asked.budget))
            last = runs[name][-1]
            print(f"{name:8} seed {seed:2}: best {last['best']:6.1f} of {BEST:.1f}, unhealthy {last['unhealthy']:.0%}")
    summary = {
        name: {
            "best": mean([run["best"] for run in runs[name]]),
            "unhealthy": mean([run["unhealthy"] for run in runs[name]]),
            "learning_rate_over_border": mean([run["learning_rate"] / BORDER for run in runs[name]]),
        }
        for name in SAMPLERS
    }
    gain = compare([run["best"] for run in runs["tpe"]], [run["best"] for run in runs["random"]])
    reached = float(np.median([run["best"] for run in runs["random"]]))
    needed = [_first(run["best_so_far"], reached) for run in runs["tpe"]]
    print(f"\n{asked.budget} trials, {asked.seeds} seeds; the constrained optimum is {BEST:.1f}")
    for name in SAMPLERS:
        (best, low, high), (share, least, most) = summary[name]["best"], summary[name]["unhealthy"]
        print(
            f"  {name:8} best {best:5.1f} [{low:.1f}, {high:.1f}], "
            f"unhealthy trials {share:.0%} [{least:.0%}, {most:.0%}]"
        )
    print(
        f"  tpe is better than random with probability {gain.probability:.2f} [{gain.low:.2f}, {gain.high:.2f}], "
        f"p = {gain.p_value:.2g}"
    )
    print(f"  trials in which tpe reaches what random reaches in {asked.budget} (median): {needed}")
    content = {
        "trials": asked.budget,
        "optimum": BEST,
        "summary": summary,
        "probability_of_improvement": [gain.probability, gain.low, gain.high],
        "p_value": gain.p_value,
        "trials_in_which_tpe_reaches_the_median_of_random": needed,
        "runs": [run for name in SAMPLERS for run in runs[name]],
    }
    print(f"written to {write('tuning', content, asked.out)}")


if __name__ == "__main__":
    main()
