"""Workers for tests, and for the processes that tests start; the module loads neither MLflow nor torch."""

from __future__ import annotations

import os
import signal
from multiprocessing.synchronize import Barrier
from typing import Any

import optuna

from benchmarks.synthetic import SPACE, healthy, score
from pipeline.tuning.storage import open_storage, turn
from pipeline.tuning.study import StudySection
from pipeline.tuning.trials import HEALTH, Outcome, Trials
from pipeline.tuning.worker import work


def section(**values: Any) -> StudySection:
    return StudySection.model_validate({"space": SPACE, **values})


def open_trials(url: str, name: str, worker: str = "test", heartbeat_seconds: int = 1, **values: Any) -> Trials:
    """A worker's trials; the study is made if it does not exist."""
    settings = section(**values)
    with turn(url):
        storage = open_storage(url, heartbeat_seconds)
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True)
    return Trials(
        study,
        storage,
        budget=settings.trials,
        distributions=settings.distributions,
        sampler=settings.make_sampler,
        worker=worker,
    )


def evaluate(trial: optuna.Trial) -> Outcome:
    if not healthy(trial.params):
        return Outcome("pruned", "gradient_explosion", depth=1)
    return Outcome("complete", values=(score(trial.params),), errors=(None,))


def work_in_a_process(url: str, name: str, number: int, all_at_work: Barrier) -> None:
    """Evaluates its first trial only when every worker has one, however slow the machine is."""
    waits = iter([True])

    def evaluate_together(trial: optuna.Trial) -> Outcome:
        if next(waits, False):
            all_at_work.wait(100)
        return evaluate(trial)

    work(open_trials(url, name, f"worker {number}", trials=20, sampler="random"), evaluate_together)


def kill_yourself_while_evaluating(url: str, name: str) -> None:
    def die(trial: optuna.Trial) -> Outcome:
        trial.set_user_attr("mlflow.run_id", "of the doomed")
        trial.set_constraint(HEALTH, 1.0)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    work(open_trials(url, name, "doomed", trials=1), die)
