"""A study as a person starts it, everything that it leaves behind, and what must hold of it whatever has happened."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from benchmarks.synthetic import EXPLODES, SPACE
from pipeline.tuning.study import with_driver
from pipeline.tuning.trials import superseded
from tests.end_to_end import forked
from tests.end_to_end.conftest import REPOSITORY, nested, own_environment

STATUSES = {"COMPLETE": {"FINISHED"}, "PRUNED": {"FAILED", "KILLED"}, "FAIL": {"FAILED", "KILLED"}}


@dataclass
class Study:
    """A study's file in a folder, and everything that it leaves behind."""

    folder: Path
    empty_database: Path
    values: dict[str, Any]

    def __post_init__(self) -> None:
        self.root, self.file = self.folder / "root", self.folder / "study.yaml"
        self.root.mkdir()
        shutil.copy(self.empty_database, self.root)
        self.url = self.values.get("study.storage", f"sqlite:///{self.root / 'optuna.db'}")
        space = self.values.pop("study.space", SPACE)
        script = str(REPOSITORY / "benchmarks" / "synthetic.py")
        parameters = {"updates": 20} | {
            name: self.values.pop(name) for name in ("seconds", "plain_mlflow", "updates") if name in self.values
        }
        content = nested(
            {
                "experiment.name": "synthetic",
                "trainer.command": [sys.executable, script],
                "trainer.parameters": parameters,
                "health.extra": [EXPLODES],
                "health.poll_seconds": 0.2,
                "ladder.rungs": ["v3"],
                "study.heartbeat_seconds": 1,
                "study.sampler": "random",
                **self.values,
            }
        )
        content["study"]["space"] = space
        self.file.write_text(yaml.safe_dump(content))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", "tune", str(self.file), f"tracking.root={self.root}", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {**own_environment(), "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}

    def run(self, *words: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
        return forked.complete(self.command(*words), cwd=self.folder, env=self.environment, timeout=timeout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return forked.start(self.command(*words), cwd=self.folder, env=self.environment)  # type: ignore[return-value]

    # What it left behind

    @property
    def optuna(self) -> optuna.Study:
        url = with_driver(self.url).render_as_string(hide_password=False)
        return optuna.load_study(study_name="synthetic", storage=RDBStorage(url))

    def trials(self) -> list[FrozenTrial]:
        try:
            return self.optuna.get_trials()
        except (KeyError, optuna.exceptions.StorageInternalError):  # not yet made
            return []

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=f"sqlite:///{self.root / 'mlflow.db'}")

    def runs(self, kind: str) -> list[Run]:
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return list(self.client.search_runs(ids, f"tags.`ladder.kind` = '{kind}'", max_results=1000))

    @property
    def parent(self) -> Run:
        (parent,) = self.runs("study")
        return parent

    def artifact(self, name: str) -> Path:
        return Path(self.client.download_artifacts(self.parent.info.run_id, name))

    def processes(self, word: str) -> list[psutil.Process]:
        """Workers (`pipeline.tuning.worker`) or trainers (`synthetic.py`) of this study that are alive."""
        found = []
        for process in psutil.process_iter():
            try:
                if word in " ".join(process.cmdline()) and process.cwd() == str(self.folder):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [
            each
            for each in found
            if each.status() != psutil.STATUS_ZOMBIE
            and not re.search("leash|zygote", " ".join(each.cmdline()))  # they only lead to such a process
        ]

    def wait_until(self, condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 200) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < until, "it did not happen"
            time.sleep(0.2)


def assert_both_sides_agree(study: Study) -> None:
    """Every trial that was begun has one run, with the same number, coefficients, value and state; none is RUNNING."""
    runs = {int(run.data.tags["optuna.trial"]): run for run in study.runs("trial")}
    begun = [trial for trial in study.trials() if "mlflow.run_id" in trial.user_attrs]
    assert len(study.runs("trial")) == len(runs) == len(begun)
    for trial in begun:
        run, tags = runs[trial.number], runs[trial.number].data.tags
        assert trial.user_attrs["mlflow.run_id"] == run.info.run_id in trial.user_attrs["mlflow.link"]
        assert tags["mlflow.parentRunId"] == study.parent.info.run_id
        assert tags["optuna.state"] == trial.state.name and run.info.status in STATUSES[trial.state.name], trial
        assert f"trials?numbers={trial.number}" in tags["optuna.link"]
        for key, value in trial.params.items():
            assert run.data.params[key] == str(value)
            assert tags[f"optuna.param.{key}"] == (f"{value:.6g}" if isinstance(value, float) else str(value))
        if trial.state == TrialState.COMPLETE:
            assert run.data.metrics["value"] == trial.value
            assert float(tags["optuna.value"]) == pytest.approx(trial.value, rel=1e-5)
    assert not [
        run for kind in ("trial", "attempt", "validation") for run in study.runs(kind) if run.info.end_time is None
    ]
    parents = {run.info.run_id for kind in ("trial", "validation") for run in study.runs(kind)}
    assert {attempt.data.tags["mlflow.parentRunId"] for attempt in study.runs("attempt")} <= parents


def assert_nothing_lost_or_doubled(study: Study, total: int) -> None:
    """So many trials came to their end, and each that was cut off was taken up again once, with its coefficients."""
    trials = study.trials()
    again = superseded(trials)
    assert len(trials) - len(again) == total
    for trial in trials:
        cut_off = trial.number in again
        assert trial.state == TrialState.FAIL if cut_off else trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    for number in again:
        successors = [t for t in trials if RetryHeartbeatStaleTrialCallback.retry_history(t)[-1:] == [number]]
        assert len(successors) == 1 and successors[0].params == trials[number].params
    kept = [tuple(trial.params.values()) for trial in trials if trial.number not in again]
    assert len(kept) == len(set(kept))
