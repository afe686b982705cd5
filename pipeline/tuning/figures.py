"""A study in pictures: history, slices, importance. They are drawn without pyplot, which keeps global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from pipeline.tuning.results import intervals, ranked
from pipeline.tuning.study import StudyPlan
from pipeline.tuning.trials import feasible

_KINDS = {
    "complete": {"color": "#1f77b4", "marker": "o"},
    "pruned": {"color": "#999999", "marker": "v"},
    "unhealthy": {"color": "#d62728", "marker": "x"},
}


def figures(plan: StudyPlan, trials: Sequence[FrozenTrial], shares: Mapping[str, float]) -> dict[str, Figure]:
    """File name → figure, for each figure that has something to show."""
    over = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    matplotlib.rcdefaults()  # a matplotlibrc of the working folder or of the user is for other pictures
    drawn: dict[str, Figure] = {}
    if over:
        drawn["history.png"] = history(plan, over)
        drawn["slices.png"] = slices(plan, over)
    if shares:
        drawn["importance.png"] = importance(shares)
    return drawn


def _kind(trial: FrozenTrial) -> str:
    if not feasible(trial):
        return "unhealthy"
    return "complete" if trial.state == TrialState.COMPLETE else "pruned"


def _floor(trials: Sequence[FrozenTrial]) -> float:
    """The height at which trials without a value are drawn, below all others."""
    values = [trial.value for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    if not values:
        return 0.0
    return min(values) - 0.1 * ((max(values) - min(values)) or 1.0)


def _scatter(axes: Axes, trials: Sequence[FrozenTrial], at: Mapping[int, float]) -> None:
    floor = _floor(trials)
    for kind, style in _KINDS.items():
        of_kind = [trial for trial in trials if _kind(trial) == kind]
        values = [floor if trial.value is None else trial.value for trial in of_kind]
        if of_kind:
            axes.scatter([at[trial.number] for trial in of_kind], values, s=28, label=kind, **style)  # type: ignore[arg-type]


def history(plan: StudyPlan, trials: Sequence[FrozenTrial]) -> Figure:
    """Figure of every trial's objective with its interval, and of the best so far."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, trials, {trial.number: trial.number for trial in trials})
    good = sorted(ranked(trials, plan.study.objective.direction), key=lambda trial: trial.number)
    known = intervals(trials)
    barred = [trial for trial in good if trial.number in known]
    if barred:
        half = [known[trial.number][1] - (trial.value or 0.0) for trial in barred]
        numbers, values = [trial.number for trial in barred], [trial.value or 0.0 for trial in barred]
        axes.errorbar(numbers, values, half, fmt="none", color="#1f77b4", alpha=0.5)
    if good:
        best = np.maximum if plan.study.objective.direction == "maximize" else np.minimum
        so_far = best.accumulate([trial.value or 0.0 for trial in good])
        axes.step([trial.number for trial in good], so_far, where="post", color="#2ca02c", label="best so far")
    axes.set(xlabel="trial", ylabel=plan.study.objective.metric, title=f"{plan.name}: history")
    axes.legend()
    return figure


def slices(plan: StudyPlan, trials: Sequence[FrozenTrial]) -> Figure:
    """Figure of the objective over each coefficient, with the default value and the unhealthy trials."""
    space = plan.study.distributions
    columns = min(4, len(space))
    rows = math.ceil(len(space) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (key, distribution) in zip(panels, space.items(), strict=False):
        having = [trial for trial in trials if key in trial.params]
        default = plan.default[key]
        if isinstance(distribution, CategoricalDistribution):
            choices = list(distribution.choices)
            at = {trial.number: float(choices.index(trial.params[key])) for trial in having}
            axes.set_xticks(range(len(choices)), [str(choice) for choice in choices])
            line = float(choices.index(default)) if default in choices else None
        else:
            at = {trial.number: float(trial.params[key]) for trial in having}
            if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
                axes.set_xscale("log")
            line = float(default) if isinstance(default, int | float) else None
        _scatter(axes, having, at)
        if line is not None:
            axes.axvline(line, color="#888888", linestyle=":", label="default")
        axes.set_xlabel(key)
    for axes in panels[len(space) :]:
        axes.set_visible(False)
    panels[0].set_ylabel(plan.study.objective.metric)
    panels[0].legend(fontsize="small")
    return figure


def importance(shares: Mapping[str, float]) -> Figure:
    """Figure of each coefficient's share, as `results.importance` gives it."""
    figure = Figure(figsize=(7, 0.6 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#1f77b4")
    axes.set(xlabel="share in reaching the best tenth of the trials", xlim=(0, None))
    return figure
