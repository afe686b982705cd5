"""What MLflow reads in the environment: this program's values for itself, the user's for the user's own trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pipeline.processes.environment import NOTE, their_environment
from pipeline.tracking.environment import OURS, prepare_mlflow
from pipeline.tracking.store import Store

THEIRS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_EXPERIMENT_NAME": "theirs",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_REGISTRY_URI": "http://127.0.0.1:1",
    "MLFLOW_TRACKING_USERNAME": "alice",
    "MLFLOW_TRACKING_PASSWORD": "tuesday-7",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's shell has it."""
    for name in (NOTE, *OURS, "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    for name, value in THEIRS.items():
        monkeypatch.setenv(name, value)


def given_to_a_trainer() -> dict[str, str]:
    return {name: value for name, value in their_environment().items() if name in {**OURS, **THEIRS}}


def test_a_trainer_gets_what_the_user_had(empty_store: Store) -> None:
    """However often it is prepared, by commands and by stores."""
    for prepare in (prepare_mlflow, prepare_mlflow, lambda: Store(empty_store.uri, empty_store.root)):
        prepare()
        assert {name: os.environ.get(name) for name in OURS} == OURS
        assert given_to_a_trainer() == THEIRS and os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_who_the_user_is_reaches_this_process() -> None:
    prepare_mlflow()
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "alice" and os.environ["MLFLOW_TRACKING_PASSWORD"] == "tuesday-7"


def test_what_the_user_says_of_telemetry_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    prepare_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_modules_change_nothing_when_they_are_imported() -> None:
    """Nor does a store that is opened after MLflow leave its telemetry on."""
    code = (
        "import json, os\n"
        "before = dict(os.environ)\n"
        "import pipeline.tracking.environment, pipeline.tracking.artifacts, pipeline.tracking.tags\n"
        "import pipeline.tracking.store\n"
        "new = {name for name in os.environ if os.environ[name] != before.get(name)}\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "from pipeline.tracking.environment import prepare_mlflow\n"
        "prepare_mlflow()\n"
        "print(json.dumps([sorted(each for each in new if 'TELEMETRY' not in each), get_telemetry_client() is None]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=200, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True]
