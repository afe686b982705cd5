"""Where all files lie under the tracking root. Nothing here creates any."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.attempt.atomic import write_atomically
from pipeline.secrets import hide_in_file

EXIT = "exit.json"
"""In an attempt's folder: how a trainer on a cluster has ended, by the word of its node."""
_SCRATCH = "ladder-"
_PLACE = "next-"
_SCRATCH_NAME = re.compile(rf"{_SCRATCH}[0-9a-f]{{8}}")
_LONGEST_PLACE = 40
"""Bytes of the path in which a scratch folder is made; programs put some 50 behind it."""
_SHORT = ("/tmp", "/var/tmp")


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
    def scratch_note(self) -> Path:
        """The file that says where :meth:`make_scratch` has made the scratch folder."""
        return self.path / "scratch"

    @property
    def signs(self) -> tuple[Path, ...]:
        """The files whose times say until when a trainer has lived at least. A cluster's node writes the second."""
        return self.log, self.path / EXIT

    @property
    def ending(self) -> Path:
        """The verdict, on disk before the store has it: :class:`pipeline.attempt.ending.Ending`."""
        return self.path / "ending.json"

    @property
    def remarks(self) -> Path:
        """What is to be known beside verdict and rules: :mod:`pipeline.attempt.remarks`."""
        return self.path / "remarks.json"

    @property
    def metrics(self) -> Path:
        """The metrics that the trainer has reported: :class:`pipeline.attempt.spool.Spool`."""
        return self.path / "metrics.jsonl"

    @property
    def delivered(self) -> Path:
        """How many bytes of `metrics` the store has."""
        return self.path / "metrics.delivered"

    def make_place(self, name: str) -> Path:
        """Makes the folder of a place that is held for the attempt after this one."""
        place = self.path.resolve() / f"{_PLACE}{name}"
        place.mkdir(mode=0o700)
        return place

    @property
    def places(self) -> list[Path]:
        """The folders of places that are held, or were."""
        return list(self.path.resolve().glob(f"{_PLACE}*"))

    def make_scratch(self) -> Path:
        """Makes the folder that is `TMPDIR` of the trainer; it is this user's alone.

        It is among the user's temporary files, where paths are short: the path of a socket has 107 bytes at most. The
        orchestrator removes it, as a trainer that is killed cannot, so it is noted before it is made.
        """
        self._remove_scratch()
        for place in (tempfile.gettempdir(), *_SHORT, str(self.path)):
            if len(os.fsencode(place)) > _LONGEST_PLACE and place != str(self.path):
                continue
            scratch = Path(place) / f"{_SCRATCH}{secrets.token_hex(4)}"
            with contextlib.suppress(OSError):
                write_atomically(self.scratch_note, str(scratch))
                scratch.mkdir(mode=0o700)
                return scratch
        raise OSError(f"{self.path}: no folder for temporary files can be made, there or in {tempfile.gettempdir()}")

    def _remove_scratch(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            remove_scratch(Path(self.scratch_note.read_text(encoding="utf-8")))
        with contextlib.suppress(OSError):
            self.scratch_note.unlink()

    def remove_leftovers(self) -> None:
        """Removes what a trainer has left: its scratch folder, files half written, and passwords in its log."""
        hide_in_file(self.log)
        self._remove_scratch()
        for half_written in (*self.path.glob("*.tmp"), *self.checkpoints.glob("*.tmp")):
            half_written.unlink(missing_ok=True)


def remove_scratch(folder: Path) -> None:
    """Removes a scratch folder that :meth:`AttemptFolder.make_scratch` has made, and no other folder."""
    with contextlib.suppress(OSError, ValueError):
        own = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
        if own and folder.is_absolute() and _SCRATCH_NAME.fullmatch(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


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
