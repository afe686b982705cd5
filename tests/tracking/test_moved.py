"""The paths in a store follow its tracking root."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from pipeline.attempt.folder import experiment_lock, mlflow_artifacts, mlflow_database
from pipeline.processes.owner import Lock, Owner
from pipeline.tracking import tags
from pipeline.tracking.access import default_uri
from pipeline.tracking.moved import follow
from pipeline.tracking.store import Store
from tests.conftest import small_config


@pytest.fixture
def moved(empty_database: Path, tmp_path: Path) -> tuple[Path, Path, str]:
    """Where a root was, where it is now, and a run of it."""
    old, new = tmp_path / "a project" / "mlruns", tmp_path / "elsewhere" / "runs"
    old.mkdir(parents=True)
    shutil.copy(empty_database, old)
    store = Store(default_uri(old), old)
    run_id = store.start_parent(small_config(), {tags.OWNER: Owner.here(old).model_dump_json()})
    store.set_tags(run_id, {tags.POLICY: str(old / "attempts" / "x.pt"), tags.NOTE: str(old / "stays")})
    new.parent.mkdir()
    old.rename(new)
    return old, new, run_id


def places(root: Path) -> str:
    """All that the database says of places."""
    with sqlite3.connect(mlflow_database(root)) as connection:
        found = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        return " ".join(str(place) for (place,) in found)


def test_old_and_new_artifacts_are_under_the_new_root(moved: tuple[Path, Path, str]) -> None:
    old, new, before = moved
    for _ in range(2):
        store = Store(default_uri(new), new)
    assert old.as_uri() not in places(new) and new.as_uri() in places(new)
    assert "seed" in (store.read_text(before, "experiment.yaml") or "")
    later = store.start_parent(small_config())
    assert (mlflow_artifacts(new) / later / "artifacts" / "experiment.yaml").exists() and not old.exists()
    run = store.run(before)
    assert run is not None and run.entity.data.tags[tags.POLICY] == str(new / "attempts" / "x.pt")
    assert run.note == str(old / "stays")


def test_a_copy_has_its_own_artifacts(moved: tuple[Path, Path, str]) -> None:
    old, new, _ = moved
    shutil.copytree(new, old)
    Store(default_uri(new), new)
    assert old.as_uri() not in places(new) and new.as_uri() not in places(old)


def test_a_root_that_is_mounted_in_two_places_is_left_alone(moved: tuple[Path, Path, str]) -> None:
    old, new, _ = moved
    old.symlink_to(new)
    Store(default_uri(new), new)
    assert old.as_uri() in places(new)


def test_nothing_changes_while_an_experiment_is_run(moved: tuple[Path, Path, str]) -> None:
    old, new, run_id = moved
    lock = Lock(experiment_lock(new, run_id), Owner.here(old))
    Store(default_uri(new), new)
    assert old.as_uri() in places(new)
    lock.release()
    Store(default_uri(new), new)
    assert old.as_uri() not in places(new)


def test_places_that_a_person_has_chosen_stay(moved: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, new, _ = moved
    chosen = (tmp_path / "chosen" / "artifacts").as_uri()
    Store(default_uri(new), new).client.create_experiment("mine", artifact_location=chosen)
    Store(default_uri(new), new)
    assert chosen in places(new)


def test_a_store_of_several_roots_follows_the_one_that_has_gone(moved: tuple[Path, Path, str], tmp_path: Path) -> None:
    old, new, _ = moved
    shared = mlflow_database(tmp_path)
    with sqlite3.connect(mlflow_database(new)) as source, sqlite3.connect(shared) as target:
        source.backup(target)
    old.mkdir()
    assert not follow(shared, new)  # it may be in use
    old.rmdir()
    assert follow(shared, new) and old.as_uri() not in places(tmp_path)
