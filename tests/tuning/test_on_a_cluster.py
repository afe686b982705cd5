"""Trials whose trainers are jobs of a cluster: an engine of four functions stands for it."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from benchmarks.synthetic import SPACE
from pipeline.config import ExperimentConfig
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.tracking.access import default_uri
from pipeline.tuning.experiment import Experiments
from pipeline.tuning.mlflow_runs import StudyStore
from pipeline.tuning.study import StudySection
from pipeline.tuning.trials import Outcome
from tests.conftest import small_config
from tests.launchers.fake_engine import FakeEngine
from tests.processes.maker import eventually

QUICK = Patience(engine=0.1, folder=0.02, late=0.3, away=5.0, final=5.0)
SYNTHETIC = Path(__file__).parents[2] / "benchmarks" / "synthetic.py"


class OneTrial:
    """The only trial of a study, at work in a thread."""

    def __init__(self, root: Path, engine: FakeEngine) -> None:
        self.config: ExperimentConfig = small_config(
            trainer__command=[sys.executable, str(SYNTHETIC)],
            trainer__parameters={"updates": 20, "seconds": 4.0},
            training__learning_rate=1e-4,
            health__rules="none",
            health__poll_seconds=0.2,
            ladder__rungs=["v3"],
            launcher__kind="slurm",
        )
        self.engine, self.store = engine, StudyStore(default_uri(root), root)
        self.parent = self.store.start_study(self.config, {}, "")
        self.study = optuna.create_study(study_name="s")
        self.outcome: Outcome | None = None
        self.launcher = RemoteLauncher(engine, 60, 2.0, QUICK)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        section = StudySection.model_validate({"space": SPACE, "objective": {"metric": "score_window"}})
        with contextlib.closing(self.launcher):
            evaluate = Experiments(
                section,
                lambda params: self.config,
                lambda params: [1],
                self.store,
                self.parent,
                "trial",
                0,
                lambda: False,
                self.launcher,
            )
            self.outcome = evaluate(self.study.ask())

    def job(self) -> str:
        """Its job, once its warden is at work."""
        eventually(lambda: list(self.store.root.glob("attempts/*/started.json")))
        (job,) = self.engine.folder.glob("*.json")
        return job.stem

    def end(self) -> Outcome:
        self._thread.join(100)
        assert self.outcome is not None
        return self.outcome

    def verdicts(self) -> list[str | None]:
        (run,) = self.store.running_under(self.parent)
        ids = [each.experiment_id for each in self.store.client.search_experiments()]
        found = self.store.client.search_runs(ids, f"tags.`mlflow.parentRunId` = '{run.run_id}'")
        return sorted(str(each.data.tags.get("ladder.verdict")) for each in found)


@pytest.fixture
def trial(tmp_path: Path, empty_database: Path) -> Iterator[OneTrial]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mlflow.db").write_bytes(empty_database.read_bytes())
    with contextlib.closing(FakeEngine(tmp_path / "engine")) as engine:
        yield OneTrial(tmp_path / "root", engine)


def test_a_person_who_cancels_the_job_ends_its_trial(trial: OneTrial) -> None:
    job = trial.job()
    trial.engine.cancel(job)
    outcome = trial.end()
    assert outcome.ended == "pruned" and f"fake job {job} was cancelled" in outcome.reason and outcome.depth == 0
    assert trial.verdicts() == ["interrupted"]


def test_a_trial_whose_job_is_taken_away_goes_on_and_counts(trial: OneTrial) -> None:
    trial.engine.take(trial.job())
    outcome = trial.end()
    assert outcome.ended == "complete" and len(outcome.values) == 1
    assert trial.verdicts() == ["healthy", "interrupted"]
