"""A training that takes no time: a known function of the coefficients, with an unhealthy region.

    score = 100 − 12·(log₁₀(learning_rate) + 2)² − 4·((entropy_coef − 0.03)/0.01)² − 4·(ppo_epochs − 4)² − 15·[sample]

Gradients explode above a learning rate of 1e-3. Without that constraint the best learning rate would be 1e-2 (score
100); with it, the best is at the very border, 1e-3 (score 88). As a command, `python benchmarks/synthetic.py`, it is a
trainer. It reports these metrics through its attempt's spool, as V3's trainer does, or with
`trainer.parameters.plain_mlflow` through plain MLflow calls, as a user's own trainer does.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.attempt.spool import Spool, SpoolWriter

BORDER = 1e-3
"""Learning rate above which gradients explode."""
OPTIMUM = {
    "training.learning_rate": BORDER,
    "training.entropy_coef": 0.03,
    "training.ppo_epochs": 4,
    "training.alpha_entropy_of": "load",
}
SPACE: dict[str, Any] = {
    "training.learning_rate": {"float": [1e-5, 1e-1], "log": True},
    "training.entropy_coef": {"float": [0.0, 0.1]},
    "training.ppo_epochs": {"int": [1, 10]},
    "training.alpha_entropy_of": {"choices": ["load", "sample"]},
}
EXPLODES = {
    "name": "explodes",
    "verdict": "gradient_explosion",
    "conditions": [{"metric": "gradient_norm", "above": 10.0}],
    "window": 3,
    "patience": 3,
}
"""The health rule that sees the explosion."""


def score(params: dict[str, Any]) -> float:
    """The score of coefficients, which are given by their keys in the configuration."""
    return (
        100.0
        - 12 * (math.log10(params["training.learning_rate"]) + 2) ** 2
        - 4 * ((params["training.entropy_coef"] - 0.03) / 0.01) ** 2
        - 4 * (params["training.ppo_epochs"] - 4) ** 2
        - 15 * (params["training.alpha_entropy_of"] == "sample")
    )


def healthy(params: dict[str, Any]) -> bool:
    """Whether the coefficients lie in the healthy region."""
    return bool(params["training.learning_rate"] <= BORDER)


def _to_mlflow() -> Callable[[dict[str, float], int], object]:
    import mlflow  # takes longer to load than everything else here

    mlflow.start_run()  # the run that MLFLOW_RUN_ID names
    return mlflow.log_metrics


def main() -> None:
    attempt = Path(os.environ["LADDER_ATTEMPT"])
    config = json.loads(attempt.read_text(encoding="utf-8"))["config"]
    training, parameters = config["training"], config["trainer"]["parameters"]
    params = {key: training[key.removeprefix("training.")] for key in OPTIMUM}
    updates, seconds = parameters.get("updates", 20), parameters.get("seconds", 0.0)
    report = _to_mlflow() if parameters.get("plain_mlflow") else SpoolWriter(Spool(attempt.parent)).write
    for update in range(1, updates + 1):
        metrics = {
            "progress": update / updates,
            "score_window": score(params) * update / updates + 0.1 * (training["seed"] % 7),
            "gradient_norm": 1.0 if healthy(params) else 10.0 * 2**update,
        }
        report(metrics, update)
        time.sleep(seconds / updates)


if __name__ == "__main__":
    main()
