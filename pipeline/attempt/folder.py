"""Where all files lie under the tracking root. Nothing here creates any."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.secrets import hide_in_file


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt: `<tracking root>/attempts/<run id>`."""

    path: Path

    @classmethod
    def of(cls, root: Path, run_id: str) -> AttemptFolder:
        return cls(root / "attempts" / run_id)

    @property
    def file(self) -> Path:
        """What the orchestrator tells the trainer: :class:`pipeline.attempt.file.AttemptFile`."""
        return self.path / "attempt.json"

    @property
    def log(self) -> Path:
        """Everything that the trainer prints."""
        return self.path / "trainer.log"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def kept(self) -> Path:
        """The checkpoints that a script has written elsewhere: :class:`pipeline.foreign.checkpoints.Collector`."""
        return self.path / "kept"

    @property
    def scratch(self) -> Path:
        """`TMPDIR` of the trainer. The orchestrator removes it, as a trainer that is killed cannot."""
        return self.path / "tmp"

    @property
    def ending(self) -> Path:
        """The verdict, on disk before the store has it: :class:`pipeline.attempt.ending.Ending`."""
        return self.path / "ending.json"

    @property
    def metrics(self) -> Path:
        """The metrics that the trainer has reported: :class:`pipeline.attempt.spool.Spool`."""
        return self.path / "metrics.jsonl"

    @property
    def delivered(self) -> Path:
        """How many bytes of `metrics` the store has."""
        return self.path / "metrics.delivered"

    def remove_leftovers(self) -> None:
        """Removes what a trainer has left: its scratch folder, files half written, and passwords in its log."""
        hide_in_file(self.log)
        shutil.rmtree(self.scratch, ignore_errors=True)
        for half_written in (*self.path.glob("*.tmp"), *self.checkpoints.glob("*.tmp")):
            half_written.unlink(missing_ok=True)


def experiment_log(root: Path, parent: str) -> Path:
    """The file of all that the orchestrator has said, by the parent run's id."""
    return root / "experiments" / f"{parent}.log"


def experiment_lock(root: Path, parent: str) -> Path:
    """The file that an orchestrator holds a lock on while it runs the experiment."""
    return root / "experiments" / f"{parent}.lock"


def experiment_locks(root: Path) -> list[Path]:
    """The locks of all experiments."""
    return list((root / "experiments").glob("*.lock"))


def served_log(root: Path) -> Path:
    """What the server says that stands before the store for trainers of another MLflow."""
    return root / "experiments" / "served.log"


def mlflow_database(root: Path) -> Path:
    """The SQLite file of the MLflow store, where no other store is named."""
    return root / "mlflow.db"


def mlflow_artifacts(root: Path) -> Path:
    """The folder of the artifacts of that store."""
    return root / "artifacts"


def matplotlib_cache(root: Path) -> Path:
    return root / "matplotlib"


def study_folder(root: Path, parent: str) -> Path:
    """The folder of a study's results and logs, by its parent run's id."""
    return root / "studies" / parent
