"""The user's environment reaches the user's own programs, and not this one's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes.environment import NOTE, OURS, prepare_python, reach_this_machine, take_over, their_environment

A_NOTEBOOK = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (NOTE, *OURS, "PYTHONWARNINGS", "PYTHONPATH", "http_proxy", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # so that it is put back after the test
        monkeypatch.delenv(name)


def ours() -> bool:
    return {name: os.environ.get(name) for name in OURS} == OURS


def test_they_get_back_what_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in A_NOTEBOOK.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    for _ in range(2):
        take_over()
        assert ours() and their_environment() == before


def test_a_variable_that_was_not_set_is_not_set() -> None:
    take_over({"MPLBACKEND": "agg"})
    assert os.environ["MPLBACKEND"] == "agg" and "MPLBACKEND" not in their_environment()


def test_what_a_program_sets_later_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    take_over()
    monkeypatch.setenv("MPLBACKEND", "svg")
    assert their_environment()["MPLBACKEND"] == "svg"
    take_over()
    assert ours() and their_environment()["MPLBACKEND"] == "svg"


@pytest.mark.parametrize("how", ["started", "forked"])
def test_also_in_a_process_of_this_one(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study's worker inherits our values, and its trainers must not."""
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    take_over()
    said = tmp_path / "said.json"
    if how == "started":
        code = (
            "import json, sys; from pathlib import Path\n"
            "from pipeline.processes.environment import take_over, their_environment\n"
            "take_over(); Path(sys.argv[1]).write_text(json.dumps(their_environment()))"
        )
        subprocess.run([sys.executable, "-c", code, str(said)], check=True, timeout=200)
    elif (pid := os.fork()) == 0:
        try:
            take_over()
            said.write_text(json.dumps(their_environment()))
        finally:
            os._exit(0)
    else:
        os.waitpid(pid, 0)
    theirs = json.loads(said.read_text())
    assert theirs["MPLBACKEND"] == "TkAgg" and NOTE not in theirs and "PYTHONUTF8" not in theirs


@pytest.mark.parametrize(
    ("given", "left", "theirs"),
    [
        ("error", None, "default"),
        ("e", None, "default"),
        ("ignore,error::DeprecationWarning", "ignore", "ignore,default::DeprecationWarning"),
        ("once", "once", "once"),
    ],
)
def test_warnings_are_no_errors(given: str, left: str | None, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor in a trainer of the user's own, which could not import MLflow."""
    monkeypatch.setenv("PYTHONWARNINGS", given)
    for _ in range(2):
        prepare_python()
        assert os.environ.get("PYTHONWARNINGS") == left and their_environment()["PYTHONWARNINGS"] == theirs


@pytest.mark.parametrize("given", [["-W", "error"], []])
def test_warnings_of_this_process_are_no_errors_either(given: list[str]) -> None:
    code = (
        "import warnings\nfrom pipeline.processes.environment import prepare_python\nprepare_python()\n"
        "warnings.warn('harmless', UserWarning)\nimport sys; print(sys.warnoptions)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **({} if given else {"PYTHONWARNINGS": "error"})}
    command = [sys.executable, *given, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert "harmless" in done.stderr


def test_no_module_of_theirs_takes_the_place_of_one_of_these(monkeypatch: pytest.MonkeyPatch) -> None:
    given = os.pathsep.join(["/theirs", str(REPOSITORY), "/others"])
    monkeypatch.setenv("PYTHONPATH", given)
    prepare_python()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(REPOSITORY), "/theirs", "/others"]
    assert their_environment()["PYTHONPATH"] == given


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, None), ({"NO_PROXY": "*"}, None), ({"NO_PROXY": "a.b,::1"}, "a.b,::1,localhost,127.0.0.1")],
)
def test_this_machine_is_reached_without_a_proxy(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach_this_machine()
    assert "no_proxy" not in os.environ
    for name, value in {"http_proxy": "http://10.255.255.1:3128", **given}.items():
        monkeypatch.setenv(name, value)
    reach_this_machine()
    assert os.environ.get("no_proxy") == (expected if given else "localhost,127.0.0.1,::1")
    assert their_environment().get("no_proxy") == os.environ.get("no_proxy")  # the tracking server is theirs too
