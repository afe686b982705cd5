"""`ladder watch RUN_ID`: chooses the checkpoint that is to play, and plays it in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.attempt.checkpoint_files import usable
from pipeline.attempt.folder import AttemptFolder
from pipeline.errors import BadInput
from pipeline.tracking.runs import ExperimentRun
from pipeline.tracking.store import Store


def watch(store: Store, word: str, seed: int, pace: float) -> int:
    """Plays the newest checkpoint of an attempt, or of an experiment's settled (else last) one. Returns the exit code.

    Raises:
        BadInput: there is no such run, or it has no checkpoint on this machine.
    """
    folder, checkpoint = chosen(store, word)
    command = [sys.executable, "-P", "-m", "pipeline.training.replay", str(folder), checkpoint]
    try:
        return subprocess.run([*command, "--seed", str(seed), "--pace", str(pace)], check=False).returncode
    except KeyboardInterrupt:  # it has ended the player too
        return 130


def chosen(store: Store, word: str) -> tuple[Path, str]:
    """The attempt's folder and the path of its newest checkpoint."""
    run = store.find(word)
    run_id = run.run_id
    if isinstance(run, ExperimentRun):
        nested = store.attempts(run)
        if not nested:
            raise BadInput(f"{word}: this experiment has no attempts yet")
        run_id = run.settled_run or nested[-1].run_id
    folder = AttemptFolder.of(store.root, run_id)
    checkpoints, _ = usable(folder.checkpoints)
    if not checkpoints:
        raise BadInput(f"{word}: no checkpoint under {folder.checkpoints}")
    return folder.path, checkpoints[-1].path
