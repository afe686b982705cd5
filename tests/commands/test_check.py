"""`ladder check` of a trainer of the user's own: what each rung's start, checkpoints and restart come to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.cli import main

SCRIPT = """
import os, sys, time
flags = dict(word.lstrip("-").split("=") for word in sys.argv[1:])
first = 0
if "resume" in flags and "deaf" not in flags:
    first = int(open(flags["resume"]).read())
    if "fragile" in flags:
        sys.exit("KeyError: 'weights'")
if "broken" in flags:
    sys.exit("ValueError: no such data")
with open(flags["out"] + "/progress.csv", "a") as table:
    print("step,loss,acc", file=table)
    for step in range(first + 1, int(flags.get("steps", 1000)) + 1):
        if "silent" not in flags:
            print(f"{step},{1 / step},{step}", file=table, flush=True)
        if step % 5 == 0:
            with open(f"{flags['out']}/model_{step}.txt", "w") as model:
                model.write(str(step))
        time.sleep(0.02)
"""
YAML = """
trainer:
  command: [python, train.py, "{flags}", "--out={folder}", "--resume={checkpoint}"]
  parameters: {lr: 0.1}
  metrics: csv
  names: {score: accuracy}
  checkpoints: {pattern: "model_*.txt", step: "model_([0-9]+)"}
ladder:
  rungs: [v3, {name: other, set: {trainer.parameters.NAME: VALUE}}]
"""


@pytest.fixture
def check(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> object:
    """Checks the script above, with a flag of the second rung. Returns the exit code and what was said."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no store of the user's is asked
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("pipeline.tracking.connection.create_database", lambda to, _: shutil.copy(empty_database, to))

    def checked(name: str = "slower", value: str = "1", *words: str, seconds: str = "1.5") -> tuple[int, str]:
        (tmp_path / "x.yaml").write_text(YAML.replace("NAME", name).replace("VALUE", value))
        code = main(["check", "x.yaml", "--seconds", seconds, *words])
        said = capsys.readouterr().out
        assert not any((tmp_path / "scratch").iterdir()) and not (tmp_path / "mlruns").exists()
        assert max(map(len, said.splitlines())) <= 80, said
        return code, " ".join(said.split())

    return checked


def test_a_good_trainer_logs_and_goes_on_from_its_checkpoints(check) -> None:  # type: ignore[no-untyped-def]
    code, said = check()
    assert code == 0
    assert said.count("start yes: first metric after") == 2 and said.count("ended in order after") == 2
    assert "metrics 2: loss, acc; up to" in said
    assert said.count("restart yes: from step") == 2 and "of v3: its first metric" in said
    assert "2 of 2 rungs start and log" in said
    assert "trainer.names.score: no metric accuracy came; nearest: acc" in said
    assert "nan_gradient" in said and "no metric with grad" in said


def test_what_is_wrong_is_said_rung_by_rung(check) -> None:  # type: ignore[no-untyped-def]
    """One logs nothing, one dies as it starts, one does not read its checkpoint, one dies of it."""
    names = ("silent", "broken", "deaf", "fragile")
    rungs = ",".join(f"{{name: {name}, set: {{trainer.parameters.{name}: 1}}}}" for name in names)
    code, said = check("slower", "1", f"ladder.rungs=[v3,{rungs}]", seconds="1")
    assert code == 2
    v3, silent, broken, deaf, fragile = said.split(" rung ")[1:]
    assert "restart yes" in v3
    assert "start NO METRIC: ended in order" in silent and "the start has printed nothing" in silent
    assert "start NO: exit code 1, last line ValueError: no such data" in broken
    assert "log: ValueError: no such data" in broken
    assert "its first metric has step 1, so its steps begin anew" in deaf
    assert "restart NO: from step" in fragile and "the restart's log: KeyError: 'weights'" in fragile
    assert "3 of 5 rungs start and log" in said and "needs more (--seconds)" in said


def test_a_command_without_a_place_for_a_checkpoint(check) -> None:  # type: ignore[no-untyped-def]
    code, said = check("lr", "0.2", 'trainer.command=[python,train.py,"--out={folder}",--steps=7]', seconds="5")
    assert code == 0
    assert said.count("came to its end in") == 2
    assert said.count("checkpoints 1: the newest of step 5, model_5.txt") == 2
    assert said.count("restart NO: the command has no {checkpoint}") == 2


@pytest.mark.parametrize("word", ["0", "x", "-3", "nan", "1e9"])
def test_seconds_are_checked(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "examples/plain.yaml", f"--seconds={word}"]) == 2
    assert "must be seconds between 1 and 3600" in capsys.readouterr().err
