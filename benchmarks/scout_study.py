"""Does a study find a gain that is real? `experiments/study_scout.yaml` and its validation, as a user would run them.

    python -m benchmarks.scout_study [--seeds 6] [--root mlruns/scout_study] [--report]

Sixteen trials of half the length of `experiments/scout.yaml`, then that experiment with its own coefficients and with
the best ones, at its own length, on fresh seeds. What was cut off goes on. `--report` only writes what there is. The
results have every trial and every run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optuna

from benchmarks.report import write
from pipeline.cli import main as ladder
from pipeline.errors import EXIT_HEALTHY
from pipeline.tuning import validation
from pipeline.tuning.results import ranked
from pipeline.tuning.study import StudyPlan, load_study
from pipeline.tuning.trials import feasible

STUDY = Path(__file__).parent.parent / "experiments" / "study_scout.yaml"


def described(plan: StudyPlan, storage: str, seeds: int) -> dict[str, Any]:
    """The trials of the study, and the validation of the best one as far as it has got."""
    trials = optuna.load_study(study_name=plan.name, storage=storage).trials
    direction = plan.study.objective.direction
    content: dict[str, Any] = {
        "objective": plan.study.objective.model_dump(),
        "base": plan.default,
        "shortened": plan.study.trial,
        "trials": [
            {
                "trial": trial.number,
                "state": trial.state.name,
                "feasible": feasible(trial),
                "value": trial.value,
                "minutes": None if trial.duration is None else round(trial.duration.total_seconds() / 60, 2),
                "coefficients": trial.params,
            }
            for trial in trials
        ],
    }
    best = ranked(trials, direction)[0]
    names = [each.study_name for each in optuna.get_all_study_summaries(storage)]
    if (name := validation.study_name(plan, best)) in names:
        runs = optuna.load_study(study_name=name, storage=storage).trials
        found = validation.results(runs, direction, validation.fresh_seeds(plan, seeds))
        done = {f"{kind}_runs": len(values) for kind, values in found.items()}
        content["validation"] = {"trial": best.number, "coefficients": best.params, "seeds": seeds, **done}
        if min(map(len, found.values())) >= 2:
            gain = validation.compare(found[validation.TUNED], found[validation.DEFAULT])
            content["validation"] |= {"result": gain.sentence, **gain.described(1.0)}
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="fresh seeds of each configuration")
    parser.add_argument("--root", type=Path, default=Path("mlruns/scout_study"), help="where the study is kept")
    parser.add_argument("--report", action="store_true", help="only write what there is")
    parser.add_argument("--out", type=Path, help="results file, instead of benchmarks/results/scout_study.json")
    asked = parser.parse_args()
    words = [f"tracking.root={asked.root.resolve()}"]
    if not asked.report:
        for more in ([], ["--validate", str(asked.seeds)]):
            if (code := ladder(["tune", str(STUDY), *words, *more])) != EXIT_HEALTHY:
                raise SystemExit(code)
    storage = f"sqlite:///{asked.root.resolve() / 'optuna.db'}"
    content = described(load_study(STUDY, words), storage, asked.seeds)
    for trial in content["trials"]:
        value = "–" if trial["value"] is None else f"{trial['value']:.1f}"
        print(f"trial {trial['trial']:2} {trial['state']:8} {value:>6} {trial['coefficients']}")
    print(content.get("validation", {}).get("result", "not validated yet"))
    print(f"written to {write('scout_study', content, asked.out)}")


if __name__ == "__main__":
    main()
