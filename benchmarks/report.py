"""What every benchmark writes: the commit, the machine, every single figure, and statistics with intervals."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

RESULTS = Path(__file__).parent / "results"


def circumstances() -> dict[str, Any]:
    """Commit (followed by `+` if the tree has changes), machine, versions, load and time."""

    def git(*words: str) -> str:
        result = subprocess.run(
            ["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        return result.stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else ""),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


_STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "median": np.median,
    "iqm": partial(stats.trim_mean, proportiontocut=0.25),
}


def interval(figures: Sequence[float], statistic: str, seed: int = 0) -> tuple[float, float, float]:
    """A statistic of runs, and its 95 % percentile bootstrap interval over runs: (value, low, high).

    Args:
        figures: one figure a run.
        statistic: `mean`, `median` or `iqm` (interquartile mean).
        seed: seed of the resampling.
    """
    values, function = np.asarray(figures, dtype=float), _STATISTICS[statistic]
    if len(values) < 2:
        return float(values[0]), float("nan"), float("nan")
    drawn = stats.bootstrap(
        (values,), function, method="percentile", n_resamples=5000, rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(function(values)), float(drawn.low), float(drawn.high)


def difference(figures: Sequence[float], others: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Difference of the means of two samples, and its 95 % percentile bootstrap interval: (value, low, high)."""
    samples = np.asarray(figures, dtype=float), np.asarray(others, dtype=float)
    apart = float(samples[0].mean() - samples[1].mean())
    if min(map(len, samples)) < 2:
        return apart, float("nan"), float("nan")
    drawn = stats.bootstrap(
        samples,
        lambda first, second, axis: first.mean(axis) - second.mean(axis),
        method="percentile",
        n_resamples=5000,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return apart, float(drawn.low), float(drawn.high)


def share(hits: int, of: int) -> tuple[float, float, float]:
    """The proportion `hits` / `of`, and its exact 95 % interval (Clopper & Pearson 1934): (value, low, high)."""
    limits = stats.binomtest(hits, of).proportion_ci(method="exact")
    return hits / of, float(limits.low), float(limits.high)


def percent(figure: Sequence[float]) -> str:
    """A proportion with its interval in words: `87 % [73, 96]`."""
    return f"{100 * figure[0]:.0f} % [{100 * figure[1]:.0f}, {100 * figure[2]:.0f}]"


def write(name: str, content: dict[str, Any], path: Path | None = None) -> Path:
    """Writes the content and the circumstances to `path`, by default `results/NAME.json`; returns the path."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**circumstances(), **content}, indent=2) + "\n", encoding="utf-8")
    return path
