"""A script without any metric is told of while it runs, once, with the likely cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder
from pipeline.experiment import first_metric
from pipeline.experiment.first_metric import FirstMetric
from pipeline.experiment_file import merge, validate
from pipeline.foreign.script_files import ScriptFiles


class Scene:
    """An attempt whose script has printed a line, and a clock."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, metrics: Any, command: list[str] | None) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr(first_metric.time, "time", lambda: self.now)
        self.root, self.working = path / "root", path / "work"
        self.folder = AttemptFolder.of(self.root, "a")
        for each in (self.folder.path, self.working):
            each.mkdir(parents=True)
        words = ["trainer.command=[train]", f"trainer.metrics={metrics}"] if command else []
        config = validate(merge({}, words, "x"), "x")
        file = AttemptFile.model_construct(folder=str(self.folder.path), config=config, command=command)
        self.files = ScriptFiles.of(file, self.working, self.root)
        self.first = FirstMetric(file, self.files, self.working, self.root)

    def after(self, seconds: float, *, has_logged: bool = False) -> str | None:
        self.now += seconds
        if self.files.metrics is not None:
            self.files.metrics._look_again = 0.0
        self.files.read_metrics()
        return self.first.news(has_logged=has_logged)

    def prints(self) -> None:
        self.folder.log.write_text("epoch 1 loss 0.5\n")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(metrics: Any = "mlflow", command: list[str] | None = ["train"]) -> Scene:  # noqa: B006
        return Scene(tmp_path, monkeypatch, metrics, command)

    return made


def test_told_once_after_a_minute_of_output(make: Any) -> None:
    scene = make()
    assert scene.after(500) is None  # it has printed nothing: it may be loading
    scene.prints()
    assert scene.after(1) is None and scene.after(50) is None
    said = scene.after(11)
    assert "no metric has arrived yet, after 61 s with output; the script has logged nothing to MLflow" in said
    assert "mlflow.log_metrics" in said and "\n" not in said
    assert scene.after(1000) is None


def test_not_told_once_a_metric_has_come_and_not_of_this_projects_own_trainer(make: Any) -> None:
    scene = make()
    scene.prints()
    assert scene.after(1) is None and scene.after(10, has_logged=True) is None and scene.after(100) is None


def test_own_trainer(make: Any) -> None:
    scene = make(command=None)
    scene.prints()
    assert scene.after(1) is None and scene.after(100) is None


def test_a_file_of_another_kind_is_named(make: Any) -> None:
    scene = make()
    scene.prints()
    scene.after(1)
    (scene.root / "attempts" / "b").mkdir()
    (scene.root / "attempts" / "b" / "progress.csv").write_text("step,loss\n")
    (scene.working / "runs").mkdir()
    (scene.working / "runs" / "progress.csv").write_text("step,loss\n1,1\n")
    assert f"it writes {scene.working}/runs/progress.csv, which trainer.metrics=csv reads" in scene.after(61)


@pytest.mark.parametrize(
    ("metrics", "file", "expected"),
    [
        ("csv", "losses.csv", "no csv file, with a usual name in "),
        ("csv", "progress.csv", "progress.csv has no line with a number yet"),
        ("{kind: csv, path: 'x/*.csv'}", "progress.csv", "no csv file, x/*.csv, is new or has grown"),
        ("csv", "metrics.jsonl", "which trainer.metrics=jsonl reads"),
    ],
)
def test_why_no_file_gives_metrics(metrics: str, file: str, expected: str, make: Any) -> None:
    scene = make(metrics)
    scene.prints()
    scene.after(1)
    (scene.working / file).write_text("step loss\n1 1\n")
    assert expected in scene.after(61)
