"""What is stored about an experiment is whole, or it is not used."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.attempt.folder import mlflow_artifacts
from pipeline.errors import BadInput
from pipeline.experiment.past import read_config
from pipeline.experiment.series import Series
from pipeline.tracking import tags
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.runs import ExperimentRun
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
