"""What every benchmark writes: the commit, the machine, every single figure, and statistics with intervals."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from pipeline.compare.statistics import Interval, interval

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


def mean(figures: Iterable[float]) -> Interval:
    """The mean of runs, one figure each, and its 95 % interval: Student's t. Fewer than three runs have none (NaN)."""
    return interval(np.array(list(figures), dtype=float), "mean")


def median(figures: Sequence[float]) -> Interval:
    """The median of runs, one figure each, and its 95 % interval: between two of them, by the binomial test of their
    ranks (Conover 1999, section 3.2). Fewer than six runs have none (NaN)."""
    values = np.asarray(figures, dtype=float)
    found = stats.quantile_test(values, p=0.5).confidence_interval(confidence_level=0.95)
    return Interval(float(np.median(values)), float(found.low), float(found.high))


def share(hits: int, of: int) -> tuple[float, float, float]:
    """The proportion `hits` / `of`, and its exact 95 % interval (Clopper & Pearson 1934): (value, low, high)."""
    limits = stats.binomtest(hits, of).proportion_ci(method="exact")
    return hits / of, float(limits.low), float(limits.high)


def shown(figure: Sequence[float], form: str) -> str:
    """A figure in this form, with its interval, if it has one: `2.1 [1.9, 2.3]`."""
    value, low, high = figure
    return form.format(value) + ("" if np.isnan(low) else f" [{form}, {form}]".format(low, high))


def percent(figure: Sequence[float]) -> str:
    """A proportion with its interval in words: `87 % [73, 96]`."""
    return f"{100 * figure[0]:.0f} % [{100 * figure[1]:.0f}, {100 * figure[2]:.0f}]"


def write(name: str, content: dict[str, Any], path: Path | None = None) -> Path:
    """Writes the content and the circumstances to `path`, by default `results/NAME.json`; returns the path."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**circumstances(), **content}, indent=2) + "\n", encoding="utf-8")
    return path
