"""`ladder diagnose` on files, and what it answers to bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli import main


def table(path: Path) -> str:
    """Forty updates, of which the last twenty have collapsed."""
    rows = [f"{512 * (k + 1)},{0.1 if k < 20 else 0.9},{0.2 if k < 20 else 0.0}" for k in range(40)]
    path.write_text("step,expert_usage_excess,expert_usage_min\n" + "\n".join(rows) + "\n")
    return str(path)


def test_a_file_gets_its_verdict_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", table(tmp_path / "run.csv"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"verdict: expert_collapse at step {512 * 28}, by load" in said
    assert "rollbacks was never logged" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run-load.png", "run-dead_expert.png"}


def test_rules_can_be_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["health.override.load.patience=10", "health.override.dead_expert.action=warn"]
    assert main(["diagnose", table(tmp_path / "run.csv"), *words]) == 0
    assert f"expert_collapse at step {512 * 30}, by load" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        (["0123456789abcdef"], "0123456789abcdef: no such run"),
        (["bad.csv"], "needs a column `step`, has: a, b"),
        (["bad.csv", "health.rules=v4"], "health.rules: unknown value 'v4'"),
        ([], "target"),
    ],
)
def test_bad_input_is_one_clear_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    assert main(["diagnose", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
