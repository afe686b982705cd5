"""What a store stands on must not disappear; nothing is made in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.tracking.presence import Presence
from pipeline.tracking.store import Store
from tests.conftest import small_config


def test_a_path_is_noted_when_it_is_first_there(tmp_path: Path) -> None:
    path = tmp_path / "artifacts"
    presence = Presence([path])
    presence.check()
    path.mkdir()
    presence.check()
    presence.check()
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(InfrastructureFailure, match="artifacts has been removed"):
        presence.check()


def test_a_file_that_is_replaced_is_noticed_and_one_that_is_written_is_not(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("one")
    presence = Presence([path])
    presence.check()
    path.write_text("more")
    presence.check()
    other = tmp_path / "other"
    other.write_text("another")
    other.replace(path)
    with pytest.raises(InfrastructureFailure, match="replaced by another"):
        presence.check()


@pytest.mark.parametrize("gone", ["database", "root"])
def test_a_database_that_is_gone_is_named_and_not_made_anew(gone: str, empty_store: Store) -> None:
    database = empty_store.root / "mlflow.db"
    if gone == "root":
        shutil.rmtree(empty_store.root)
    else:
        database.unlink()
    with pytest.raises(InfrastructureFailure, match="has been removed while it was in use") as caught:
        empty_store.parents()
    assert not isinstance(caught.value, StoreAway) and not database.exists()


def test_no_empty_database_is_made_in_the_place_of_one_that_has_gone(tmp_path: Path) -> None:
    """Not even by a connection that is opened in the moment after the look at the path."""
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    store.start_parent(small_config())
    (tmp_path / "mlflow.db").rename(tmp_path / "kept.db")
    engine = create_engine(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(OperationalError, match="unable to open database file"):
        engine.connect()
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "kept.db").rename(tmp_path / "mlflow.db")
    engine.connect().close()
