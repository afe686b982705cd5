"""Real processes: `ladder` as a person starts it, against a real store in a folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from tests.conftest import SMALL

REPOSITORY = Path(__file__).parent.parent.parent


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} → {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


@dataclass
class Experiment:
    """An experiment's file in a folder, and everything that it leaves behind."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.folder / "root"
        self.scratch = self.folder / "scratch"  # of the whole machine, as far as the experiment knows
        self.file = self.folder / "experiment.yaml"
        self.file.write_text(yaml.safe_dump(nested({"experiment.name": "small", **SMALL, **self.values})))

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "pipeline", "run", str(self.file), f"tracking.root={self.root}"]

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
        self.scratch.mkdir(exist_ok=True)
        return {
            **kept,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(self.scratch),
            "HOME": str(self.scratch),
        }

    def run(self, timeout: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def ladder(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Any other command."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def start(self, **options: Any) -> subprocess.Popen[str]:
        how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
        return subprocess.Popen(self.command, cwd=self.folder, env=self.environment, **how)

    # What it left behind

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.root / 'mlflow.db'}")

    def runs(self) -> list[Run]:
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return list(self.client.search_runs(ids))

    @property
    def parent(self) -> Run:
        (parent,) = (run for run in self.runs() if run.data.tags["ladder.kind"] == "experiment")
        return parent

    @property
    def attempts(self) -> list[Run]:
        found = [run for run in self.runs() if run.data.tags["ladder.kind"] == "attempt"]
        return sorted(found, key=lambda run: int(run.data.tags["ladder.attempt"]))

    def trainers(self) -> list[psutil.Process]:
        """Processes that are still at work on an attempt of this experiment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("LADDER_ATTEMPT", "").startswith(str(self.root)):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def wait_for_updates(self, count: int, process: subprocess.Popen[str], seconds: float = 120) -> None:
        """Until the present attempt has logged so many updates."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            if (self.root / "mlflow.db").exists():
                attempts = self.attempts if self.runs() else []
                if attempts and attempts[-1].data.metrics.get("update", 0) >= count:
                    return
            time.sleep(0.3)
        raise AssertionError("no updates came")


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Any]:
    """Makes experiments in this test's folder; ends what they may have left running."""
    made: list[Experiment] = []

    def make(**values: Any) -> Experiment:
        each = Experiment(tmp_path, {key.replace("__", "."): value for key, value in values.items()})
        made.append(each)
        return each

    yield make
    for each in made:
        for process in each.trainers():
            process.send_signal(signal.SIGKILL)


def evidence(run: Run) -> list[dict[str, Any]]:
    return json.loads(run.data.tags["ladder.evidence"])  # type: ignore[no-any-return]
