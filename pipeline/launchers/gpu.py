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
    """Refuses experiments that ask for a GPU where there is none. A user's own trainer may ask for anything.

    Another process asks torch, because this one must not load it, and only if an experiment asks for a GPU.
    `begun`: the experiments are continued.

    Raises:
        BadInput: an experiment asks for a GPU, and torch finds none. The message says what torch says.
    """
    here = [config for config in configs if config.launcher.kind == "local"]  # a node elsewhere has its own devices
    rungs = [rung for config in here for rung in (config, *Ladder(config).configs)]
    if not any(rung.training.device == "cuda" and rung.trainer.command is None for rung in rungs):
        return
    asked = subprocess.run(
        [sys.executable, "-P", "-c", _ASK], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    if asked.returncode:
        version = asked.stdout.strip()
        problem = f"torch {version} finds no GPU here" if version else "torch cannot be loaded"
        why = "".join(f" ({line.strip()})" for line in asked.stderr.splitlines()[-1:])
        remedy = "what was begun on a GPU goes on where there is one" if begun else "allowed: auto, cpu"
        raise BadInput(f"training.device: cuda: {problem}{why}; {remedy}")
