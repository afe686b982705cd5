"""Where a store is, and what is said of one that does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, InfrastructureFailure, StoreAway
from pipeline.tracking.access import create_database, reachable, tracking_root, tracking_uri


def test_no_connection_is_said_in_two_words() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreAway) as away, reachable(uri):
            MlflowClient(uri).get_run("a" * 32)
    assert str(away.value) == f"tracking store {uri}: no connection"


def test_other_errors_are_said_as_they_are() -> None:
    with pytest.raises(StoreAway, match=r"^tracking store sqlite:///x: two words$"), reachable("sqlite:///x"):
        raise OSError("two\n  words")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tracking.root": "~nobody-of-that-name/x"}, "tracking.root: '~nobody-of-that-name/x': Could not determine"),
        ({"tracking.root": "/tmp/5%decay"}, "tracking.root: '/tmp/5%decay' has a '%'"),
        ({"tracking.root": "/tmp/what?x=1"}, "tracking.root: '/tmp/what?x=1' has a '?'"),
        ({"tracking.uri": "sqlite:///"}, "tracking.uri: 'sqlite:///' names no file"),
    ],
)
def test_a_place_that_cannot_be_is_refused(
    values: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = ExperimentConfig().with_values(values)
    with pytest.raises(BadInput) as refused:
        tracking_root(config), tracking_uri(config)
    assert str(refused.value).startswith(problem)


def test_a_driver_that_is_not_there_is_named() -> None:
    said = "its driver is not installed: No module named 'MySQLdb'"
    with pytest.raises(InfrastructureFailure, match=said) as away, reachable("mysql://a/b"):
        raise ModuleNotFoundError("No module named 'MySQLdb'")
    assert not isinstance(away.value, StoreAway)


def test_a_database_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    """Also on a disk that can only be read."""
    (tmp_path / "mlflow.db").touch()
    create_database(tmp_path / "mlflow.db", "file:///x")
    assert [each.name for each in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_root_that_is_a_file_is_refused(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BadInput, match=f"^tracking.root: {file} is a file; it must be a folder"):
        tracking_root(ExperimentConfig().with_values({"tracking.root": str(file / below)}))


@pytest.mark.parametrize("root", ["a" * 300, "a\0b"])
def test_a_root_that_cannot_be_a_path_is_refused(root: str) -> None:
    with pytest.raises(BadInput, match=r"^tracking.root: '"):
        tracking_root(ExperimentConfig().with_values({"tracking.root": root}))
