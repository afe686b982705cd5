"""This program waits by itself; a trainer finds what the user's environment had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tracking.environment import MLFLOW_WAITING, OWN_WAITING, prepare_mlflow, their_waiting
from pipeline.tracking.store import Store

RETRIES, TIMEOUT = OWN_WAITING
NOTE = "LADDER_MLFLOW_WAITING"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's shell has it, with one of the two variables set."""
    for name in (NOTE, RETRIES, TIMEOUT, "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv(RETRIES, "5")


THEIRS = {RETRIES: "5", TIMEOUT: MLFLOW_WAITING[TIMEOUT]}


def ours() -> bool:
    return {name: os.environ[name] for name in OWN_WAITING} == OWN_WAITING


def test_a_trainer_gets_what_the_user_had(empty_store: Store) -> None:
    """However often it is prepared, by commands and by stores."""
    assert their_waiting() == THEIRS
    for _ in range(2):
        prepare_mlflow()
        assert ours() and their_waiting() == THEIRS and os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    Store(empty_store.uri, empty_store.root)
    Store(empty_store.uri, empty_store.root)
    assert ours() and their_waiting() == THEIRS


@pytest.mark.parametrize("how", ["started", "forked"])
def test_also_in_a_process_of_this_one(how: str, tmp_path: Path) -> None:
    """A study's worker inherits our values, and its trainers must not."""
    prepare_mlflow()
    said = tmp_path / "said.json"
    if how == "started":
        code = (
            "import json, sys; from pathlib import Path\n"
            "from pipeline.tracking.environment import prepare_mlflow, their_waiting\n"
            "prepare_mlflow(); Path(sys.argv[1]).write_text(json.dumps(their_waiting()))"
        )
        subprocess.run([sys.executable, "-c", code, str(said)], check=True, timeout=200)
    elif (pid := os.fork()) == 0:
        try:
            prepare_mlflow()
            said.write_text(json.dumps(their_waiting()))
        finally:
            os._exit(0)
    else:
        os.waitpid(pid, 0)
    assert json.loads(said.read_text()) == THEIRS


def test_what_a_trainer_sets_itself_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that opens a store, started with its values and with the note of the process that started it."""
    prepare_mlflow()
    for name, value in their_waiting().items():
        monkeypatch.setenv(name, value)
    prepare_mlflow()
    assert ours() and their_waiting() == THEIRS
    monkeypatch.setenv(RETRIES, "2")
    prepare_mlflow()
    assert ours() and their_waiting() == THEIRS | {RETRIES: "2"}


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
