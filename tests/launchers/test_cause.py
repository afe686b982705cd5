"""Why a trainer cannot start: what is seen in its command, and what its last words say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.attempt.start import START
from pipeline.experiment.conclude import verdict_at_exit
from pipeline.launchers.cause import cause_of, refusal
from pipeline.launchers.exit import Exit

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"


@pytest.mark.parametrize(
    ("first", "mode", "says"),
    [
        ("#!/bin/bash\r\necho\r\n", 0o755, "Windows line ends (CRLF): its first line asks for '/bin/bash\\r'"),
        ("#!/usr/bin/env python3\r\n", 0o755, "Windows line ends (CRLF): its first line asks for 'python3\\r'"),
        ("#!/no/such/python\n", 0o755, "asks for /no/such/python, and there is no such file"),
        ("#!/usr/bin/env -S no-such-python -u\n", 0o755, "asks for no-such-python, and there is no such command"),
        ("#! \n", 0o755, "names no interpreter"),
        ("#!/tmp\n", 0o755, "asks for /tmp, which cannot be executed"),
        ("#!/bin/bash\n", 0o644, "not executable (chmod +x"),
        ("#!/bin/bash\n", 0o755, None),
        ("#!/usr/bin/env python3\n", 0o755, None),
        ("#!/usr/bin/env -S A=1 python3 -u", 0o755, None),
    ],
)
def test_a_script_that_cannot_be_executed_is_refused_in_words(
    first: str, mode: int, says: str | None, tmp_path: Path
) -> None:
    script = tmp_path / "train.sh"
    script.write_bytes(first.encode())
    script.chmod(mode)
    found = refusal(str(script), PATH)
    assert (found is None) if says is None else (found is not None and says in found)


def test_other_commands_that_cannot_be_executed(tmp_path: Path) -> None:
    assert refusal(str(tmp_path), PATH) == "it is a folder"
    assert refusal(str(tmp_path / "none"), PATH) == "there is no such file"
    assert refusal("no-such-command", PATH) == "there is no such command on the PATH"
    assert refusal("python3", PATH) is None and refusal(sys.executable, PATH) is None


SCRIPTS = {
    "missing file": ([sys.executable, "none.py"], "there is no file", True),
    "missing module": ([sys.executable, "-m", "no.such"], "no module no", True),
    "folder": ([sys.executable, "."], "a folder without a __main__.py", True),
    "import": ([sys.executable, "-c", "import no_such_module"], "no module no_such_module", True),
    "syntax": ([sys.executable, "-c", "x = ("], "cannot be compiled: SyntaxError", True),
    "indentation": ([sys.executable, "-c", " x = 1\ny = 2"], "cannot be compiled: IndentationError", True),
    "arguments": (
        [sys.executable, "-c", "import argparse; argparse.ArgumentParser().parse_args(['--lr', '1'])"],
        "unrecognized arguments: --lr 1",
        False,
    ),
    "shell": (["bash", "-c", "no-such-command"], "no-such-command", True),
    "shell, no right": (["bash", "-c", "/etc/passwd"], "/etc/passwd", True),
    "shell with CRLF": (["bash", "crlf.sh"], "Windows line ends", True),
}


@pytest.mark.parametrize(("command", "says", "certain"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_last_words_name_the_cause(command: list[str], says: str, certain: bool, tmp_path: Path) -> None:
    (tmp_path / "crlf.sh").write_bytes(b"python -c 'print(1)'\r\nfalse\r\n")
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    cause = cause_of(done.returncode, done.stderr.splitlines())
    assert cause is not None and says in cause.words and cause.certain is certain, done


def test_another_experiment_is_told_with_its_remedy() -> None:
    line = "MlflowException: Cannot start run with ID 1 because active experiment ID does not match environment run ID."
    cause = cause_of(1, ["Traceback", line])
    assert cause is not None and "mlflow.set_experiment()" in cause.words and cause.certain


def test_an_error_that_nobody_knows_has_no_cause() -> None:
    assert cause_of(1, ["Traceback", "KeyError: 'x'"]) is None and cause_of(3, []) is None


def ended(code: int, words: str, tmp_path: Path) -> Exit:
    log = tmp_path / "trainer.log"
    log.write_text(words)
    return Exit.of(code, log, 0)


@pytest.mark.parametrize(
    ("code", "words", "rule"),
    [
        (1, "KeyError: 'x'\n", START),
        (0, "", START),
        (-signal.SIGSEGV, "", START),
        (-signal.SIGKILL, "", "exit"),  # by a person, or another program
        (143, "", "exit"),
        (1, "MlflowException: API request to http://x failed with exception: Max retries exceeded\n", "exit"),
        (1, "sqlite3.OperationalError: database is locked\n", "exit"),
        (28, "", "exit"),
    ],
)
def test_what_may_pass_by_itself_is_no_failed_start(code: int, words: str, rule: str, tmp_path: Path) -> None:
    (evidence,) = verdict_at_exit(ended(code, words, tmp_path), logged=False).evidence
    assert evidence.rule == rule
    (evidence,) = verdict_at_exit(ended(code or 1, words, tmp_path), logged=True).evidence
    assert evidence.rule == "exit"


def test_exit_code_0_without_a_metric_is_certain_only_from_scratch(tmp_path: Path) -> None:
    (evidence,) = verdict_at_exit(ended(0, "done\n", tmp_path), logged=False).evidence
    assert evidence.detail["certain"] and "not a single metric" in evidence.sentence()
    assert "TensorBoard" in evidence.sentence() and "certain" not in evidence.sentence()
    (evidence,) = verdict_at_exit(ended(0, "done\n", tmp_path), logged=False, scratch=False).evidence
    assert not evidence.detail["certain"]  # nothing may have been left to train
