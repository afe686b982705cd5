"""Whether this machine has the GPU that an experiment asks for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from fallbacks.ladder import Ladder
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput

_ASK = "import sys, torch; print(torch.__version__); sys.exit(not torch.cuda.is_available())"


def require_device(configs: Iterable[ExperimentConfig], *, begun: bool = False) -> None:
    """Nothing happens where each rung's `training.device` is there, or the trainer is a person's own.

    torch is asked in a process of its own, as this one must not load it, and only where a GPU is asked for.
    `begun`: they are to go on as they began.

    Raises:
        BadInput: a GPU is asked for, and torch finds none; with what it says of that.
    """
    rungs = [rung for config in configs for rung in (config, *Ladder(config).configs)]
    if not any(rung.training.device == "cuda" and rung.trainer.command is None for rung in rungs):
        return
    asked = subprocess.run([sys.executable, "-P", "-c", _ASK], capture_output=True, text=True, check=False)
    if asked.returncode:
        version = asked.stdout.strip()
        problem = f"torch {version} finds no GPU here" if version else "torch cannot be loaded"
        why = "".join(f" ({line.strip()})" for line in asked.stderr.splitlines()[-1:])
        remedy = "what was begun on a GPU goes on where there is one" if begun else "allowed: auto, cpu"
        raise BadInput(f"training.device: cuda: {problem}{why}; {remedy}")
