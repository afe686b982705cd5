"""What is stored about an experiment is whole, or it is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from fallbacks.ladder import Ladder, Plan
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder, experiment_lock, mlflow_artifacts
from pipeline.attempt.record import Attempt
from pipeline.errors import BadInput
from pipeline.experiment.past import read_config, read_past
from pipeline.experiment.series import Series
from pipeline.health.verdict import Evidence, Verdict
from pipeline.processes.owner import Lock, Owner
from pipeline.tracking import tags
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.runs import AttemptRun, ExperimentRun
from pipeline.tracking.store import Store
from tests.conftest import small_config

LONG = small_config(
    trainer__command=["python", "train.py"],
    trainer__parameters={f"key{number}": "ü" * 100 for number in range(600)} | {"small": 1e-05},
    faults=[{"kind": "crash", "at_update": 3}],
)


def begun(store: Store, **said: str) -> tuple[ExperimentRun, Path]:
    """An experiment with a configuration of 60 kB, and the path of its artifact."""
    run_id = store.start_parent(LONG, said)
    run = store.run(run_id)
    assert isinstance(run, ExperimentRun)
    return run, mlflow_artifacts(store.root) / run_id / "artifacts" / CONFIGURATION


def test_the_artifact_says_it(empty_store: Store) -> None:
    run, _ = begun(empty_store)
    assert read_config(empty_store, run) == LONG


@pytest.mark.parametrize("damage", ["removed", "cut", "empty", "nonsense", "a folder", "bytes"])
def test_the_tags_say_it_where_the_artifact_cannot_be_read(empty_store: Store, damage: str) -> None:
    run, artifact = begun(empty_store)
    whole = artifact.read_text()
    artifact.unlink()
    match damage:
        case "cut":
            artifact.write_text(whole[: whole.index("trainer:")])  # YAML all the same, and a valid configuration
        case "empty":
            artifact.touch()
        case "nonsense":
            artifact.write_text("{")
        case "a folder":
            artifact.mkdir()
        case "bytes":
            artifact.write_bytes(b"\xff\xfe")
    found = read_config(empty_store, run)
    assert found.trainer.command == LONG.trainer.command and found.faults == LONG.faults
    assert found.trainer.parameters["key599"] == "ü" * 100 and found.trainer.parameters["small"] == 1e-05


def test_tags_that_are_not_whole_are_not_used(empty_store: Store) -> None:
    run, artifact = begun(empty_store)
    empty_store.client.delete_tag(run.run_id, f"{tags.SETTINGS}.1")
    cut = empty_store.run(run.run_id)
    assert isinstance(cut, ExperimentRun)
    assert read_config(empty_store, cut) == LONG
    artifact.unlink()
    with pytest.raises(BadInput, match="its configuration cannot be read"):
        read_config(empty_store, cut)


def test_a_series_is_whole_or_none(empty_store: Store) -> None:
    series = Series.of(range(2**30, 2**30 + 1500))
    run, _ = begun(empty_store, **series.tags)
    assert len(series.tags) > 1 and Series.read(run) == series
    empty_store.set_tags(run.run_id, {tags.SERIES: '{"key'})
    cut = empty_store.run(run.run_id)
    assert isinstance(cut, ExperimentRun) and Series.read(cut) is None


def test_a_remedy_is_read_back_with_and_without_the_attempts_file(empty_store: Store) -> None:
    """An orchestrator that died before it wrote the file has left the tags alone: the ladder says the rest."""
    config = small_config()
    parent = empty_store.start_parent(config)
    first = empty_store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    failed = Verdict(name="gradient_explosion", evidence=(Evidence(rule="test"),))
    Ending.now(failed, 1.0).write(AttemptFolder.of(empty_store.root, first).path)
    empty_store.end_attempt(first, failed)
    plan = Ladder(config).after([Attempt(0, "v3", config, first, failed)])
    assert isinstance(plan, Plan) and plan.remedy == "calm_gradients"
    second = empty_store.start_attempt(
        parent, plan.config, rung="v3", number=1, diff={}, warm_start=None, reason="", remedy=plan.remedy
    )
    run = empty_store.run(second)
    assert isinstance(run, AttemptRun) and (run.rung, run.remedy, run.label) == (
        "v3",
        "calm_gradients",
        "v3 + calm_gradients",
    )

    def back() -> Attempt:
        found = empty_store.run(parent)
        assert isinstance(found, ExperimentRun)
        lock = Lock(experiment_lock(empty_store.root, parent), Owner.here(empty_store.root))
        try:
            past = read_past(empty_store, found, config, lock)
        finally:
            lock.release()
        assert [each.remedy for each in past.attempts] == [None, "calm_gradients"]
        assert past.summaries[1].rung == "v3 + calm_gradients"
        going = Ladder(config).resume(past.attempts)
        assert isinstance(going, Plan) and going.label == "v3 + calm_gradients" and going.continues == second
        return past.attempts[1]

    assert back().config == plan.config
    folder = str(AttemptFolder.of(empty_store.root, second).path)
    other = plan.config.with_values({"environment.num_envs": 2})
    AttemptFile(config=other, run_id=second, rung="v3", remedy=plan.remedy, number=1, folder=folder).write()
    assert back().config == other
