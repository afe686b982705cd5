"""What experiments on a cluster need: an engine that stands for it, and a store in a folder of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.launchers.fake_engine import FakeEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with contextlib.closing(FakeEngine(tmp_path / "engine")) as engine:
        yield engine


@pytest.fixture
def empty(tmp_path: Path, empty_database: Path) -> Store:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mlflow.db").write_bytes(empty_database.read_bytes())
    return Store(default_uri(tmp_path / "root"), tmp_path / "root")
