"""A small picture of a finding: the metric, its bound, the healthy band, the onset and the moment of detection."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.health.history import History
from pipeline.health.rule_sets import BANDS
from pipeline.health.rules import AnyRule, PlateauRule, Rule
from pipeline.health.verdict import Evidence

_INK, _BAD, _GOOD = "#334155", "#c0392b", "#2e8b57"
_LABELS = ("warm-up", "transition", "fine-tune")


def draw(history: History, rule: AnyRule, evidence: Evidence) -> Figure:
    """One panel for each metric of the rule, on the steps of the run."""
    metrics = (rule.metric,) if isinstance(rule, PlateauRule) else tuple(each.metric for each in rule.conditions)
    figure = Figure(figsize=(7.2, 1.0 + 1.9 * len(metrics)), dpi=100, layout="constrained")
    axes = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axis, metric in zip(axes, metrics, strict=True):
        if isinstance(rule, PlateauRule):
            _plateau(axis, history, rule, evidence)
        else:
            _bounded(axis, history, rule, metrics.index(metric), evidence)
        _moments(axis, evidence)
        axis.set_ylabel(metric, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    _phases(axes[0], history)
    axes[-1].set_xlabel("environment steps", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False, loc="best")
    conditions = " and ".join(f"{each.metric} {each.threshold()}" for each in getattr(rule, "conditions", ()))
    title = f"{rule.verdict}, by the rule {rule.name}\n{conditions or evidence.threshold}"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", wrap=True)
    return figure


def _bounded(axis: Axes, history: History, rule: Rule, index: int, evidence: Evidence) -> None:
    condition = rule.conditions[index]
    steps, values = history.series(condition.metric)
    limits = condition.limits(values, rule.window, rule.grace)
    if evidence.detection_step is not None:  # what follows the run says nothing about a moment before
        limits = [np.where(steps <= evidence.detection_step, limit, np.nan) for limit in limits]
    shown = np.concatenate([values, *limits])
    if len(values) and np.nanmin(shown) > 0 and np.nanmax(shown) > 50 * np.nanmin(shown):
        axis.set_yscale("log")
    axis.plot(steps, values, color=_INK, linewidth=1.2, marker="." if len(steps) < 80 else None, markersize=3)
    for number, limit in enumerate(limits):
        axis.plot(steps, limit, color=_BAD, linewidth=1, linestyle="--", label=None if number else "bound")
    for band in BANDS:
        if band.metric == condition.metric:
            axis.axhspan(*band.normal, color=_GOOD, alpha=0.12, linewidth=0, label="normal")


def _plateau(axis: Axes, history: History, rule: PlateauRule, evidence: Evidence) -> None:
    steps, values = history.series(rule.metric)
    axis.plot(steps, values, color=_INK, linewidth=0.6, alpha=0.35)
    width = max(1, len(values) // 20)
    if len(values) >= width:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth, color=_INK, linewidth=1.4, label=f"mean of {width} updates")
    mean, gain = evidence.detail.get("mean"), evidence.detail.get("gain")
    if mean is not None and gain is not None and evidence.detection_step is not None:
        ends = [evidence.onset_step or 0, evidence.detection_step]
        axis.plot(ends, [mean - gain / 2, mean + gain / 2], color=_BAD, linewidth=1.4, label="fitted trend")


def _moments(axis: Axes, evidence: Evidence) -> None:
    onset, detection = evidence.onset_step, evidence.detection_step
    if onset is None or detection is None:
        return
    axis.axvspan(onset, detection, color=_BAD, alpha=0.08, linewidth=0)
    axis.axvline(onset, color=_BAD, linewidth=1, linestyle=":", label=f"onset {onset}")
    axis.axvline(detection, color=_BAD, linewidth=1.2, label=f"detected {detection}")


def _phases(axis: Axes, history: History) -> None:
    """The phases' names above the first panel, where each begins."""
    steps, phase = history.series("phase")
    for index in np.flatnonzero(np.diff(phase, prepend=-1)):
        name = _LABELS[int(phase[index])] if 0 <= phase[index] < len(_LABELS) else ""
        axis.annotate(
            name, (float(steps[index]), 1.0), xycoords=("data", "axes fraction"), fontsize=8, color=_INK, va="bottom"
        )
