"""Whether this machine has the GPU that an experiment asks for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from fallbacks.ladder import Ladder
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput

_ASK = "import sys, torch; print(torch.__version__); sys.exit(not torch.cuda.is_available())"


def require_device(configs: Iterable[ExperimentConfig]) -> None:
    """Nothing happens where each rung's `training.device` is there, or the trainer is a person's own.

    torch is asked in a process of its own, as this one must not load it, and only where a GPU is asked for.

    Raises:
        BadInput: a GPU is asked for, and torch finds none.
    """
    rungs = [rung for config in configs for rung in (config, *Ladder(config).configs)]
    if not any(rung.training.device == "cuda" and rung.trainer.command is None for rung in rungs):
        return
    asked = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        version = asked.stdout.strip() or "which cannot be loaded"
        raise BadInput(f"training.device: cuda: torch ({version}) finds no GPU here; allowed: auto, cpu")
