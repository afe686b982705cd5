"""A store that this user may only read is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import ExperimentConfig
from pipeline.errors import InfrastructureFailure
from pipeline.tracking import access
from pipeline.tracking.access import snapshot
from pipeline.tracking.store import Store, open_store
from tests.conftest import small_config


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written, as far as this program can tell. Another user cannot be had in a test."""
    may = os.access
    monkeypatch.setattr(access.os, "access", lambda path, mode: mode != os.W_OK and may(path, mode))


def test_what_may_be_written_is_read_in_place(empty_store: Store, tmp_path: Path) -> None:
    assert snapshot(empty_store.uri, tmp_path / "copy") == empty_store.uri
    assert snapshot("http://127.0.0.1:5000", tmp_path) == "http://127.0.0.1:5000"


def test_a_copy_has_what_was_written_last_and_leaves_the_original_alone(
    empty_store: Store, forbidden: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = ExperimentConfig().with_values({"tracking.root": str(empty_store.root)})
    run_id = empty_store.start_parent(small_config())
    store = open_store(config)
    copy = Path(store.uri.removeprefix("sqlite:///"))
    assert store.uri != empty_store.uri and copy.exists()
    assert [run.run_id for run in store.parents()] == [run_id]
    store.log_metrics(run_id, {"x": 1.0})
    assert not empty_store.latest(run_id)
    del store
    assert not copy.exists()


def test_a_copy_that_cannot_be_made_is_told(empty_store: Store, forbidden: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureFailure, match="Not a directory"):
        snapshot(empty_store.uri, tmp_path / "file")
