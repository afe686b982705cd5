"""What a study has found so far: the best trials with their intervals, what mattered, and `tuned.yaml`.

Every function takes the trials as Optuna's storage has them, including those that were queued again.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from pipeline.foreign.flags import text
from pipeline.preflight import accepting
from pipeline.secrets import hidden_in
from pipeline.tuning.mlflow_runs import RUN
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import DEPTH, ERRORS, REASON, VALUES, cut_off, feasible, superseded

SHOWN = 5
"""Number of best trials that a table shows."""


@dataclass(frozen=True)
class TrialCount:
    """Number of trials by their outcome; a trial that was queued again counts once."""

    complete: int
    pruned: int
    """Ended by the pruner: healthy, but unpromising."""
    unhealthy: int
    """Infeasible: the training failed."""
    failed: int
    """Failed through no fault of the coefficients."""
    running: int
    waiting: int
    """Queued, or cut off and still to be queued again."""

    @property
    def done(self) -> int:
        """Trials that need no more work."""
        return self.complete + self.pruned + self.unhealthy + self.failed

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial]) -> TrialCount:
        """Counts the trials of a study."""
        again = superseded(list(trials))
        counted = [trial for trial in trials if trial.number not in again]
        over = [trial for trial in counted if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        good = [trial for trial in over if feasible(trial)]
        return cls(
            complete=sum(trial.state == TrialState.COMPLETE for trial in good),
            pruned=sum(trial.state == TrialState.PRUNED for trial in good),
            unhealthy=len(over) - len(good),
            failed=sum(trial.state == TrialState.FAIL and not cut_off(trial) for trial in counted),
            running=sum(trial.state == TrialState.RUNNING for trial in counted),
            waiting=sum(trial.state == TrialState.WAITING or cut_off(trial) for trial in counted),
        )

    def __str__(self) -> str:
        named = {"complete": self.complete, "pruned": self.pruned, "unhealthy": self.unhealthy, "failed": self.failed}
        return ", ".join(f"{count} {name}" for name, count in named.items() if count or name != "failed")


def ranked(trials: Sequence[FrozenTrial], direction: str) -> list[FrozenTrial]:
    """Healthy trials that were trained to the end, the best first."""
    good = [each for each in trials if each.state == TrialState.COMPLETE and feasible(each) and each.value is not None]
    return sorted(good, key=lambda each: each.value or 0.0, reverse=direction == "maximize")


def intervals(trials: Sequence[FrozenTrial]) -> dict[int, tuple[float, float]]:
    """Trial number → 95 % interval of its objective.

    With several seeds a trial, the interval is that of the mean over seeds: Student's t, with the deviation between
    seeds pooled over all trials, because the few seeds of one trial say little about its own deviation. With one seed,
    it is the interval of that run's score over its games, which says nothing about other seeds. Trials for which
    neither is known are left out.
    """
    several = [trial for trial in trials if len(trial.user_attrs.get(VALUES, [])) > 1]
    found: dict[int, tuple[float, float]] = {}
    freedom = sum(len(trial.user_attrs[VALUES]) - 1 for trial in several)
    if freedom:
        squares = sum(
            pd.Series(trial.user_attrs[VALUES]).var() * (len(trial.user_attrs[VALUES]) - 1) for trial in several
        )
        deviation, quantile = math.sqrt(squares / freedom), float(stats.t.ppf(0.975, freedom))
    for trial in trials:
        if trial.value is None:
            continue
        values, errors = trial.user_attrs.get(VALUES, []), trial.user_attrs.get(ERRORS, [])
        half = None
        if len(values) > 1:
            half = quantile * deviation / math.sqrt(len(values))
        elif errors and errors[0] is not None:
            half = 1.96 * errors[0]
        if half is not None:
            found[trial.number] = (trial.value - half, trial.value + half)
    return found


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of each coefficient in reaching the best tenth of the completed trials (PED-ANOVA, arXiv:2304.10255)."""
    if sum(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)) < 4:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # in small studies all trials may be equal
        return optuna.importance.get_param_importances(study)


def with_interval(trial: FrozenTrial, known: dict[int, tuple[float, float]]) -> str:
    """The trial's value and interval in words: `12.3 [10.1, 14.5]`."""
    value = "–" if trial.value is None else f"{trial.value:.4g}"
    low_high = known.get(trial.number)
    return value + (f" [{low_high[0]:.4g}, {low_high[1]:.4g}]" if low_high else "")


def table(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """A frame with one row a trial: outcome, value, interval, parameters and MLflow run."""
    known = intervals(trials)
    rows: list[dict[str, Any]] = []
    for trial in trials:
        low, high = known.get(trial.number, (None, None))
        seconds = trial.duration.total_seconds() if trial.duration is not None else None
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name,
                "feasible": feasible(trial) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
                "value": trial.value if trial.state != TrialState.FAIL else None,
                "low": low,
                "high": high,
                "depth": trial.user_attrs.get(DEPTH),
                "reason": trial.user_attrs.get(REASON),
                "minutes": None if seconds is None else round(seconds / 60, 2),
                **trial.params,
                "run_id": trial.user_attrs.get(RUN),
            }
        )
    return pd.DataFrame(rows)


def note(plan: StudyPlan, trials: Sequence[FrozenTrial], shares: dict[str, float]) -> str:
    """The study in Markdown, for the description of its run."""
    objective, known = plan.study.objective, intervals(trials)
    best_of_all = ranked(trials, objective.direction)
    best = best_of_all[:SHOWN]
    keys = list(plan.study.space)
    lines = [
        f"**{objective.metric}** ({objective.direction}): {TrialCount.of(trials)} of {plan.study.trials} trials",
        "",
    ]
    if not best:
        return "\n".join([*lines, "No healthy trial has come to its end yet."])
    lines += ["| trial | " + objective.metric + " | " + " | ".join(keys) + " |", "|---|---|" + "---|" * len(keys)]
    for trial in best:
        cells = [_number(trial.params.get(key)) for key in keys]
        lines.append(f"| {trial.number} | {with_interval(trial, known)} | " + " | ".join(cells) + " |")
    default = next((trial for trial in best_of_all if trial.params == plan.default), None)
    value = "" if default is None else f" (trial {default.number}) | {with_interval(default, known)}"
    cells = [_number(plan.default[key]) for key in keys]
    lines.append(f"| default{value or ' |'} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Intervals: 95 %, {interval_of(plan)}. The best of many is partly the luckiest: `ladder tune --validate`.",
    ]
    if shares:
        lines += ["", "Importance: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items())]
    return "\n".join(lines)


def interval_of(plan: StudyPlan) -> str:
    """What the study's intervals are over, in words."""
    return f"over {plan.study.seeds} seeds" if plan.study.seeds > 1 else "over the games of one seed"


def tuned_yaml(plan: StudyPlan, best: FrozenTrial, trials: Sequence[FrozenTrial], validated: str | None = None) -> str:
    """The base with the best trial's coefficients, as a file that `ladder run` takes.

    Args:
        plan: the study's plan.
        best: the best trial.
        trials: all trials.
        validated: the result of this trial's validation, None if there is none.
    """
    objective, config = plan.study.objective, plan.tuned(best.params)
    where = f"{plan.study.base or 'the experiment of the study'}, with the best coefficients of the study {plan.name!r}"
    shorter = ", ".join(f"{key}={text(value)}" for key, value in plan.study.trial.items())
    value = f"{objective.metric} {with_interval(best, intervals(trials))}"
    lines = [
        f"{where}:",
        f"trial {best.number} of {TrialCount.of(trials).done}, {value} ({objective.direction}; {interval_of(plan)}).",
        *([f"A trial had {shorter}."] if shorter else []),
        *(f"tuned: {key}: {_number(plan.default[key])} → {_number(value)}" for key, value in best.params.items()),
        f"validation: {validated}" if validated else "not validated yet: ladder tune … --validate 6",
    ]
    # What the base differs in without accepting it, this file does not accept either.
    unsaid = {*accepting(plan.config).preflight.accept} - {*plan.config.preflight.accept}
    accepted = tuple(name for name in accepting(config).preflight.accept if name not in unsaid)
    content = config.with_values({"preflight.accept": accepted}).model_dump(mode="json")
    if plan.base_experiment is not None:
        content["experiment"] = plan.base_experiment
    if plan.base_seeds:
        content["training"]["seed"] = list(plan.base_seeds)
    head = "".join(f"# {' '.join(line.split())}\n" for line in hidden_in(lines))  # a value may have several lines
    return head + yaml.safe_dump(hidden_in(content), sort_keys=False, allow_unicode=True)


def eta(trials: Sequence[FrozenTrial], missing: int, at_work: int) -> timedelta | None:
    """Time until `missing` trials are done by `at_work` workers, if they take as long as those so far.

    None while nothing is known: no trial has ended, or no worker is at work.
    """
    seconds = [
        trial.duration.total_seconds()
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.duration is not None
    ]
    if not seconds or not at_work:
        return None
    return timedelta(seconds=round(sum(seconds) / len(seconds) * missing / at_work))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
