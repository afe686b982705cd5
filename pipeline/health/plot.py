"""The picture of a finding: the metrics, their bounds, the healthy band, the onset and the moment of detection."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.health.history import History
from pipeline.health.phase import Phase
from pipeline.health.rule import Curves, Rule
from pipeline.health.rule_sets import BANDS
from pipeline.health.verdict import Evidence

_INK, _BAD, _GOOD = "#334155", "#c0392b", "#2e8b57"


def draw(history: History, rule: Rule, evidence: Evidence) -> Figure:
    """A figure with one panel for each of the rule's curves, over the steps of the run."""
    matplotlib.rcdefaults()  # a matplotlibrc of the working folder or of the user is for other pictures
    panels = rule.curves(history, evidence)
    figure = Figure(figsize=(7.2, 1.0 + 1.9 * len(panels)), dpi=100, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, curves in zip(axes, panels, strict=True):
        _values(axis, curves)
        _limits(axis, curves)
        _moments(axis, evidence)
        axis.set_ylabel(curves.metric, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    _phases(axes[0], history)
    axes[-1].set_xlabel("environment steps", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False, loc="best")
    title = f"{rule.verdict}, by the rule {rule.name}\n{rule.title(evidence)}"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", wrap=True)
    return figure


def _values(axis: Axes, curves: Curves) -> None:
    """The values as a line with gaps, and marks at the bottom where a value is not finite."""
    finite = np.isfinite(curves.values)
    steps, values = curves.steps, np.where(finite, curves.values, np.nan)
    if not finite.all():
        odd = steps[~finite]
        bottom = np.zeros(len(odd))
        across = axis.get_xaxis_transform()
        axis.plot(odd, bottom, "x", color=_BAD, markersize=5, label="NaN or infinite", transform=across, clip_on=False)
    if not curves.noisy:
        axis.plot(steps, values, color=_INK, linewidth=1.2, marker="." if len(steps) < 80 else None, markersize=3)
        return
    axis.plot(steps, values, color=_INK, linewidth=0.6, alpha=0.35)
    width = max(1, len(values) // 20)
    steps, values = steps[finite], values[finite]
    if len(values) >= width:
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        axis.plot(steps[width - 1 :], smooth, color=_INK, linewidth=1.4, label=f"mean of {width} reports")


def _finite(values: np.ndarray) -> np.ndarray:
    """The values (n,) with NaN, which leaves a gap, for those that are not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def _limits(axis: Axes, curves: Curves) -> None:
    """Bounds, trend and healthy band; the axis is logarithmic where values and bounds lie far apart.

    With values of both signs it is linear about 0, and logarithmic beyond their median size.
    """
    shown = np.concatenate([curves.values, *curves.limits])
    sizes = np.abs(shown[np.isfinite(shown) & (shown != 0)])
    if curves.limits and len(sizes):
        if len(sizes) == np.isfinite(shown).sum() and (shown[np.isfinite(shown)] > 0).all():
            if sizes.max() > 50 * sizes.min():
                axis.set_yscale("log")
        elif 1000 < sizes.max() / np.median(sizes) < 1e100:
            axis.set_yscale("symlog", linthresh=float(np.median(sizes)))
    for number, limit in enumerate(curves.limits):
        axis.plot(curves.steps, limit, color=_BAD, linewidth=1, linestyle="--", label=None if number else "bound")
    if curves.trend is not None:
        steps, values = zip(*curves.trend, strict=True)
        axis.plot(steps, values, color=_BAD, linewidth=1.4, label="fitted trend")
    for band in BANDS:
        if band.metric == curves.metric:
            axis.axhspan(*band.normal, color=_GOOD, alpha=0.12, linewidth=0, label="normal")


def _moments(axis: Axes, evidence: Evidence) -> None:
    """Onset and detection, and the span between them."""
    onset, detection = evidence.onset_step, evidence.detection_step
    if onset is None or detection is None:
        return
    axis.axvspan(onset, detection, color=_BAD, alpha=0.08, linewidth=0)
    axis.axvline(onset, color=_BAD, linewidth=1, linestyle=":", label=f"onset {onset}")
    axis.axvline(detection, color=_BAD, linewidth=1.2, label=f"detected {detection}")


def _phases(axis: Axes, history: History) -> None:
    """The name of each phase, above the panel where it begins."""
    steps, phase = history.series("phase")
    for index in np.flatnonzero(np.diff(phase, prepend=-1)):
        begun = Phase.logged(phase[index])
        name = "" if begun is None else begun.label
        axis.annotate(
            name, (float(steps[index]), 1.0), xycoords=("data", "axes fraction"), fontsize=8, color=_INK, va="bottom"
        )
