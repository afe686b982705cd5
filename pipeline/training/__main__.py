"""`python -m pipeline.training`: the trainer's process.

Finds its attempt's file and its MLflow run in the environment. Exit codes: 0 done, 130 asked to stop, 12 out of
memory, 1 anything else.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import torch

from pipeline.attempt import ATTEMPT_VARIABLE, EXIT_INTERRUPTED, EXIT_OUT_OF_MEMORY, AttemptFile
from pipeline.tracking import TrainerRun
from pipeline.training.trainer import run_attempt


def _ran_out_of_memory(error: BaseException) -> bool:
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or allocator


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("nle").setLevel(logging.WARNING)
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    attempt = AttemptFile.read(os.environ[ATTEMPT_VARIABLE])
    run = TrainerRun()
    try:
        if not run_attempt(attempt, run.log):
            return EXIT_INTERRUPTED
        from pipeline.training.publish import publish  # takes seconds to load, and is needed only at the end

        publish(run, attempt.config, Path(attempt.folder) / "checkpoints")
        return 0
    except Exception as error:
        logging.exception("the trainer ends with an error")
        return EXIT_OUT_OF_MEMORY if _ran_out_of_memory(error) else 1


if __name__ == "__main__":
    sys.exit(main())
