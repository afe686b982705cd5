"""`ladder init`: the interpreter, the script's own help, and the file that is written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.commands import init

SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--out")
parser.parse_args()
open("trained", "w")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["init", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_standard_output_is_the_yaml_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "train.py", "--lr", "0.5", "--", "--out", "there"]) == 0
    data = yaml.safe_load(capsys.readouterr().out)
    assert data["trainer"]["command"] == ["python", "train.py", "--out", "there", "{flags}"]
    assert data["trainer"]["parameters"] == {"lr": 0.5} and not Path("trained").exists()


def test_no_file_is_overwritten_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "train.py", "--out", "x.yaml"]) == 0
    assert "wrote x.yaml; try it: ladder check x.yaml" in capsys.readouterr().out
    first = Path("x.yaml").read_text()
    assert "--force" in refused(capsys, "--out=x.yaml", "train.py", "--lr=7")
    assert Path("x.yaml").read_text() == first
    assert main(["init", "train.py", "--lr=7", "--out", "x.yaml", "--force"]) == 0
    assert "replaced x.yaml" in capsys.readouterr().out and "lr: 7" in Path("x.yaml").read_text()


def test_the_interpreter_of_the_environment_beside_the_script(here: Path) -> None:
    (here / "src").mkdir()
    script = here / "src" / "train.py"
    script.touch()
    assert init._interpreter(script) == "python"
    python = here / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert init._interpreter(script) == ".venv/bin/python"
    (here / "src" / "pyproject.toml").touch()
    assert init._interpreter(script) == "python"  # the environment of another project


def test_how_a_script_starts(here: Path) -> None:
    for name, first in (("a", "#!/bin/sh"), ("b", "#!/usr/bin/env python3"), ("c.sh", "echo"), ("d", "#!/bin/sh -e")):
        (here / name).write_text(f"{first}\n")
    (here / "a").chmod(0o755)
    assert init._start(Path("a")) == (["./a"], False)
    assert init._start(Path("b")) == (["python", "b"], True)
    assert init._start(Path("c.sh")) == (["bash", "c.sh"], False)
    assert init._start(Path("d")) == (["/bin/sh", "-e", "d"], False)


def test_a_help_that_takes_too_long_leaves_the_flags_of_the_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(init, "HELP_SECONDS", 0.5)
    Path("train.py").write_text(SCRIPT.replace("parser.parse", "import time; time.sleep(60); parser.parse"))
    assert main(["init", "train.py"]) == 0
    said = capsys.readouterr().out
    assert "says nothing within 0.5 seconds" in said and "parameters: {lr: 0.1}" in said


def test_a_script_without_a_parser_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text('open("trained", "w")')
    assert main(["init", "train.py"]) == 0
    assert "no parser of flags" in capsys.readouterr().out and not Path("trained").exists()


def test_a_help_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text(f"import no_such_module\n{SCRIPT}")
    assert main(["init", "train.py"]) == 0
    assert "ends with exit code 1: ModuleNotFoundError: No module named 'no_such_module'" in capsys.readouterr().out


def test_what_is_no_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file; there are train.py" in refused(capsys, "tarin.py")
    assert "is a folder" in refused(capsys, ".")
    Path("x.yaml").touch()
    assert "is YAML already" in refused(capsys, "x.yaml")
    Path("notes").write_text("hello")
    assert "is neither Python" in refused(capsys, "notes")
    assert "--out: expects" in refused(capsys, "train.py", "--out")
    assert "unknown placeholder {lrr}" in refused(capsys, "train.py", "{lrr}")
    assert "No such file or directory" in refused(capsys, "train.py", "--out", f"no{os.sep}x.yaml")
