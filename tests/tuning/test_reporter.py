"""What a trial is told while its run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from pipeline.tuning.experiment import TrialReporter
from pipeline.tuning.study import StudySection


def test_updates_logged_between_two_reads_do_not_shift_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each history is read by a call of its own, and the trainer logs further updates in between."""
    store = Store(default_uri(tmp_path), tmp_path)
    experiment = store.client.create_experiment("e")
    run_id = store.client.create_run(experiment).info.run_id
    update = 0

    def log_one_more() -> None:
        nonlocal update
        update += 1
        for name, value in (("score_window", float(update)), ("progress", update / 20)):
            store.client.log_metric(run_id, name, value, step=update)

    for _ in range(18):
        log_one_more()
    read = store.client.get_metric_history

    def meanwhile(*arguments: Any) -> Any:
        found = read(*arguments)
        log_one_more()
        return found

    trial = optuna.create_study().ask()
    section = StudySection.model_validate(
        {"space": {"training.gamma": {"float": [0.9, 0.99]}}, "objective": {"metric": "score_window"}}
    )
    reporter = TrialReporter(trial, store, section, before=[], seeds=1, asked=lambda: False)
    reporter._run_id = run_id
    monkeypatch.setattr(store.client, "get_metric_history", meanwhile)
    reporter._report()
    assert update == 20
    reporter._report()
    reported = trial.study.get_trials()[0].intermediate_values
    assert reported == {5 * number: float(number) for number in range(1, 21)}
