"""What every benchmark writes down: the commit, the machine, every single figure, and an interval."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"


def circumstances() -> dict[str, Any]:
    """Commit (with `+` where the tree had changes), machine, versions, load, time."""

    def git(*words: str) -> str:
        result = subprocess.run(["git", *words], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
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


def median_interval(figures: Sequence[float], seed: int = 0, samples: int = 2000) -> tuple[float, float, float]:
    """Median, and its 95 % percentile bootstrap interval."""
    values = np.asarray(figures)
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(samples, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def write(name: str, content: dict[str, Any], path: Path | None = None) -> Path:
    """Writes `results/NAME.json`, or `path`."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**circumstances(), **content}, indent=2) + "\n")
    return path
