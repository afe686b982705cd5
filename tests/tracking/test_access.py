"""What is said of a store that does not answer."""

from __future__ import annotations

import socket

import pytest
from mlflow import MlflowClient

from pipeline.errors import StoreAway
from pipeline.tracking.access import reachable


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
