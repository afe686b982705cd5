"""The variables by which a script that calls MLflow in its own way is led to the run of its attempt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import ExperimentConfig

HOOK = Path(__file__).parent / "hook"
_VARIABLE = "PYTHONPATH"


def redirected(config: ExperimentConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """What is added to a trainer's environment: nothing for this project's own, or with `trainer.redirect: false`."""
    if config.trainer.command is None or not config.trainer.redirect:
        return {}
    before = environment.get(_VARIABLE)
    return {_VARIABLE: f"{HOOK}{os.pathsep}{before}" if before else str(HOOK)}
