"""`python -m pipeline.training`: the trainer's process.

The process finds its attempt's file through the environment variable LADDER_ATTEMPT, and writes its metrics to the
attempt's folder. Exit codes: 0 done, 130 asked to stop, 12 out of memory, 28 disk full, 137 a worker was killed,
1 anything else.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys

from pipeline.attempt.file import (
    ATTEMPT_VARIABLE,
    EXIT_DISK_FULL,
    EXIT_INTERRUPTED,
    EXIT_KILLED,
    EXIT_OUT_OF_MEMORY,
    AttemptFile,
)
from pipeline.attempt.spool import Spool, SpoolWriter
from pipeline.processes.environment import prepare_python
from pipeline.secrets import learn_environment
from pipeline.training.beside import WorkerGone, start_beside


def _ran_out_of_memory(error: BaseException) -> bool:
    import torch

    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    no_room = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or allocator or no_room


def _exit_code(error: BaseException) -> int:
    if _ran_out_of_memory(error):
        return EXIT_OUT_OF_MEMORY
    if isinstance(error, WorkerGone) and error.exit_code == -signal.SIGKILL:
        return EXIT_KILLED
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return EXIT_DISK_FULL if full else 1


def main() -> int:
    learn_environment()
    prepare_python()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("nle").setLevel(logging.WARNING)
    logging.getLogger("nle.env.base").setLevel(logging.WARNING)
    attempt = AttemptFile.read(os.environ[ATTEMPT_VARIABLE])
    metrics = SpoolWriter(Spool(attempt.where.path), attempt.reported_step)  # the orchestrator delivers them to MLflow
    try:
        from pipeline.training.baseline import Baseline
        from pipeline.training.trainer import run_attempt  # takes seconds, unless a zygote has imported it already

        # Before the workers, whose pipes it must not have.
        with contextlib.closing(Baseline(attempt.config, attempt.random_score)) as baseline:
            beside = start_beside(attempt.config.training)
            if not run_attempt(attempt, metrics, beside, baseline):
                return EXIT_INTERRUPTED
        if attempt.config.tracking.publish:
            from pipeline.training.publish import publish  # takes seconds, and is needed only at the end

            publish(attempt.config, attempt.where.checkpoints, metrics.sign_of_life)
        return 0
    except Exception as error:
        logging.exception("the trainer ends with an error")
        return _exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
