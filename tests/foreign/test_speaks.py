"""Scripts that speak to MLflow, and those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.foreign.speaks import may_speak_to_mlflow


def speaks(folder: Path, *command: str, **files: str) -> bool:
    for name, source in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return may_speak_to_mlflow(command, folder)


@pytest.mark.parametrize(
    "source",
    ["import mlflow", "from mlflow import log_metric", "def f():\n    import mlflow.pytorch",
     "from lightning.pytorch.loggers import MLFlowLogger", "trainer(report_to='mlflow')", "import transformers",
     "from ultralytics import YOLO", "__import__('ml' 'flow'); # mlflow", "import mlflow\n\tbroken("],
)  # fmt: skip
def test_a_script_that_names_it_may(source: str, tmp_path: Path) -> None:
    assert speaks(tmp_path, "python", "train.py", train=source)


@pytest.mark.parametrize(
    "command", [("train.py",), ("-u", "train.py", "--lr", "1"), ("-m", "train"), ("-m", "torch.x", "train.py")]
)
def test_a_script_that_writes_tables_does_not(command: tuple[str, ...], tmp_path: Path) -> None:
    assert not speaks(tmp_path, "python", *command, train="import csv, torch", other="import mlflow")


def test_modules_beside_the_script_count(tmp_path: Path) -> None:
    assert speaks(tmp_path, "python", "train.py", train="import logs", logs="import mlflow")
    assert speaks(tmp_path, "python", "-m", "package.train", package__train="import mlflow")
    assert not speaks(tmp_path, "python", "-m", "plain.train", plain__train="import csv")
    assert speaks(tmp_path, "python", str(tmp_path / "package" / "train.py"))


def test_where_no_script_is_found_it_may(tmp_path: Path) -> None:
    assert speaks(tmp_path, "python", "-m", "installed.package")
    assert speaks(tmp_path, "python", "-c", "print()")
    assert speaks(tmp_path, "python", "missing.py")
