"""Metrics in files of a script's own: read once, in order, while they grow."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.remarks import remarks
from pipeline.attempt.spool import Spool
from pipeline.config import ExperimentConfig, MetricsSource
from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate
from pipeline.foreign import event_files, follow
from pipeline.foreign.files import Finder, Place, places
from pipeline.foreign.follow import Follower
from pipeline.foreign.row import metric_name
from pipeline.foreign.tables import CsvTail


class Scene:
    """An attempt's folder, the folder in which the script runs, and a follower between them and the spool."""

    def __init__(self, path: Path) -> None:
        self.working, self.root = path / "work", path / "root"
        self.folder = AttemptFolder(self.root / "attempts" / "a")
        for each in (self.working, self.folder.path, self.root / "attempts" / "b"):
            each.mkdir(parents=True)

    def follow(self, kind: Any, **source: Any) -> Follower:
        self.follower = Follower(MetricsSource(kind=kind, **source), self.folder, self.working, self.root)
        return self.follower

    def poll(self, **how: Any) -> list[tuple[int, dict[str, float]]]:
        """Everything that has been reported since the last time."""
        self.follower._look_again = 0.0
        self.follower.poll(**how)
        spool = Spool(self.folder.path)
        reports, position = spool.pending(100_000)
        spool.mark(position)
        return [(each.step, each.metrics) for each in reports]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_rows_of_a_table_come_once_and_half_a_line_waits(scene: Scene) -> None:
    scene.follow("csv")
    path = scene.folder.path / "out" / "train.csv"
    path.parent.mkdir()
    assert scene.poll() == []
    with path.open("w") as file:
        print("step,loss,name", file=file, flush=True)
        assert scene.poll() == []
        file.write("10,0.5,a\n20,0.")
        file.flush()
        assert scene.poll() == [(10, {"loss": 0.5})] and scene.poll() == []
        file.write("25,b\n30,,c\n40,nan,d")
        file.flush()
        assert scene.poll() == [(20, {"loss": 0.25})]
    ((step, metrics),) = scene.poll(to_the_end=True)
    assert step == 40 and math.isnan(metrics["loss"])
    assert scene.poll(to_the_end=True) == []


def test_a_file_that_was_there_before_counts_from_where_it_stood(scene: Scene) -> None:
    old, untouched = scene.working / "progress.csv", scene.working / "logs" / "progress.csv"
    untouched.parent.mkdir()
    for path in (old, untouched):
        path.write_text("step,loss\n1,1.0\n")
    scene.follow("csv")
    assert scene.poll() == []
    with old.open("a") as file:
        file.write("2,0.5\n")
    assert scene.poll() == [(2, {"loss": 0.5})]


def test_a_file_of_an_earlier_run_that_is_written_anew_counts_from_its_beginning(scene: Scene) -> None:
    path = scene.working / "progress.csv"
    path.write_text("step,loss\n1,1.0\n2,1.0\n")
    scene.follow("csv")
    path.write_text("step,loss\n1,3.0\n")
    assert scene.poll() == [(1, {"loss": 3.0})]


def test_a_new_column_repeats_no_row(scene: Scene) -> None:
    """Lightning and SB3 write the whole file again, with another header."""
    scene.follow("csv")
    path = scene.folder.path / "metrics.csv"

    def write(rows: list[dict[str, Any]]) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list({name: None for row in rows for name in row}))
            writer.writeheader()
            writer.writerows(rows)

    rows = [{"epoch": 0, "step": 9, "train": 1.0}]
    write(rows)
    assert scene.poll() == [(9, {"epoch": 0.0, "train": 1.0})]
    rows.append({"epoch": 0, "step": 9, "val": 2.0})
    write(rows)
    assert scene.poll() == [(9, {"epoch": 0.0, "val": 2.0})]
    path.write_text("epoch,")  # between two writes
    assert scene.poll() == []
    rows.append({"epoch": 1, "step": 19, "train": 0.5})
    write(rows)
    assert scene.poll() == [(19, {"epoch": 1.0, "train": 0.5})]


@pytest.mark.parametrize(
    ("header", "row", "step", "expected"),
    [
        ("step,x", "3,1", None, (3, {"x": 1.0})),
        ("time/total_timesteps,x", "300,1", None, (300, {"time/total_timesteps": 300.0, "x": 1.0})),
        ("epoch,x", "2,1", None, (2, {"epoch": 2.0, "x": 1.0})),
        ("epoch,seen,x", "2,64,1", "seen", (64, {"epoch": 2.0, "x": 1.0})),
        ("r,l,t", "5,1,0.1", None, (1, {"r": 5.0, "l": 1.0, "t": 0.1})),
        ('"a, b",x', "5,True", None, (1, {"a, b": 5.0})),
    ],
)
def test_which_column_is_the_step(
    header: str, row: str, step: str | None, expected: tuple[int, dict[str, float]], tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f'#{{"t_start": 1}}\n{header}\n{row}\n')
    ((found),) = CsvTail(path, step=step).read()
    assert (found.step, found.metrics) == expected


def test_a_column_that_is_not_there_is_said_once(scene: Scene) -> None:
    scene.follow("csv", step="steps")
    (scene.folder.path / "a.csv").write_text("step,x\n1,2\n")
    scene.poll()
    (said,) = scene.follower.news()
    assert "trainer.metrics.step: no column 'steps'" in said and "step, x" in said
    assert list(scene.follower.news()) == []


def test_objects_of_lines(scene: Scene) -> None:
    scene.follow("jsonl")
    path = scene.working / "runs" / "x" / "log.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"step": 1, "train": {"loss": 0.5, "ok": True}, "name": "x", "all": [1]}, {"step": 2, "loss": math.nan}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "not json\n[1]\n")
    first, second = scene.poll()
    assert first == (1, {"train/loss": 0.5}) and second[0] == 2 and math.isnan(second[1]["loss"])
    assert scene.poll() == []  # the spool itself, which is such a file, is not followed


def test_two_files_with_the_same_metric_are_told_apart(scene: Scene) -> None:
    scene.follow("csv")
    (scene.folder.path / "train.csv").write_text("step,loss,lr\n1,1.0,0.1\n")
    (scene.folder.path / "val.csv").write_text("step,loss,acc\n1,2.0,0.5\n")
    assert scene.poll() == [(1, {"loss": 1.0, "lr": 0.1}), (1, {"val/loss": 2.0, "acc": 0.5})]


def test_a_poll_costs_what_is_new(scene: Scene) -> None:
    def read_so_far() -> int:
        (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar"))
        return int(line.split()[1])

    scene.follow("csv")
    path = scene.folder.path / "long.csv"
    path.write_text("step,loss\n" + "".join(f"{step},0.5\n" for step in range(50_000)))
    assert len(scene.poll()) == 50_000
    with path.open("a") as file:
        file.write("50000,0.5\n")
    scene.follower.poll()
    before = read_so_far()
    scene.follower.poll()
    with path.open("a") as file:
        file.write("50001,0.5\n")
    scene.follower.poll()
    assert read_so_far() - before < 50_000 < path.stat().st_size
    assert [step for step, _ in scene.poll()] == [50_000, 50_001]


def test_other_attempts_and_other_files_are_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.follow("csv")
    for path in (
        scene.root / "attempts" / "b" / "progress.csv",
        scene.working / "data.csv",
        scene.working / ".hidden" / "progress.csv",
        scene.working / "node_modules" / "progress.csv",
        scene.folder.checkpoints / "x.csv",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("step,x\n1,1\n")
    assert scene.poll() == []
    monkeypatch.setattr(follow, "belongs_to_another", lambda path, attempt: "theirs" in path.parts)
    for name in ("ours", "theirs"):
        (scene.working / name).mkdir()
        (scene.working / name / "progress.csv").write_text("step,x\n1,1\n")
    assert len(scene.poll()) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("logs/*.csv", ["logs/a.csv"]),
        ("**/*.csv", ["a.csv", "logs/a.csv", "logs/deep/a.csv"]),
        ("**/deep/a.*", ["logs/deep/a.csv"]),
        ("./logs/deep/a.csv", ["logs/deep/a.csv"]),
        ("{here}/logs/**", ["logs/a.csv", "logs/deep/a.csv"]),
        ("nowhere/*.csv", []),
    ],
)
def test_patterns(pattern: str, expected: list[str], tmp_path: Path) -> None:
    where = places(tmp_path, tmp_path, pattern.format(here=tmp_path), "", ())
    finder = Finder(where)
    for name in ("a.csv", "logs/a.csv", "logs/deep/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in finder.found()] == expected


def test_a_link_that_leads_back_ends_no_look(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert Finder([Place(tmp_path, ("**/*.csv",))]).found() == []


def test_what_cannot_be_written_is_kept(scene: Scene) -> None:
    scene.follow("csv")
    (scene.folder.path / "a.csv").write_text("step,x\n1,2\n")
    scene.folder.metrics.mkdir()  # stands for a full disk
    scene.follower.poll()
    assert any("metrics.jsonl" in said for said in scene.follower.news())
    scene.folder.metrics.rmdir()
    assert scene.poll() == [(1, {"x": 2.0})]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("charts/episodic return", "charts/episodic return"),
        ("acc@1 (%)", "acc_1 ___"),
        ("/a//b/./../c", "a/b/_/c"),
        ("..", "_"),
        ("", "_"),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_refuses(name: str, expected: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metric_name(name) == expected
    _validate_metric_name(metric_name(name))


def test_a_line_of_the_spool_that_is_no_report_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        'oops\n{"time": 1, "step": 1, "metrics": {"a": 1}}\n{"step": 2}\n'
        '{"time": 1, "step": 3, "metrics": {"a": NaN}}\n'
    )
    reports, position = Spool(tmp_path).pending()
    assert [each.step for each in reports] == [1, 3]
    assert position == (tmp_path / "metrics.jsonl").stat().st_size


def refusal(words: list[str]) -> str:
    with pytest.raises(BadInput) as refused:
        validate(merge({}, ["trainer.command=[a]", *words], "x"), "x")
    return str(refused.value)


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(*words: str) -> MetricsSource:
        return validate(merge({}, ["trainer.command=[a]", *words], "x"), "x").trainer.metrics

    assert source("trainer.metrics=csv") == MetricsSource(kind="csv")
    assert source("trainer.metrics={kind: jsonl, path: 'a/*.jsonl', step: n}").path == "a/*.jsonl"
    assert Follower.of(ExperimentConfig(), AttemptFolder(Path("a")), Path("b"), Path("c")) is None
    assert "'cvs'; nearest: csv; allowed: mlflow, tensorboard, csv, jsonl" in refusal(["trainer.metrics=cvs"])
    monkeypatch.setattr(event_files, "is_there", lambda: False)
    said = refusal(["trainer.metrics=tensorboard"])
    assert "pip install tensorboard" in said and "\n" not in said


needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs the package tensorboard"
)


@pytest.fixture
def writer() -> Callable[[Path], Any]:
    """An event file as TensorBoard's own writer writes it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    class Writer:
        def __init__(self, folder: Path) -> None:
            self._writer = EventFileWriter(str(folder))

        def add(self, tag: str, value: float, step: int, at: float = 2e9) -> None:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            self._writer.add_event(Event(wall_time=at, step=step, summary=summary))
            self._writer.flush()

    return Writer


@needs_tensorboard
def test_scalars_of_event_files(scene: Scene, writer: Callable[[Path], Any]) -> None:
    scene.follow("tensorboard")
    runs = writer(scene.working / "runs" / "CartPole__ppo__1")
    runs.add("charts/episodic_return", 20.0, 100)
    assert scene.poll() == [(100, {"charts/episodic_return": 20.0})] and scene.poll() == []
    runs.add("losses/value_loss", math.nan, 128)
    runs.add("charts/episodic_return", 21.0, 200)
    (first, second) = scene.poll()
    assert first[0] == 128 and math.isnan(first[1]["losses/value_loss"]) and second[0] == 200
    validation = writer(scene.working / "runs" / "validation")
    validation.add("charts/episodic_return", 1.0, 200)
    assert scene.poll() == [(200, {"validation/charts/episodic_return": 1.0})]


@needs_tensorboard
def test_events_of_an_earlier_run_are_not_taken_and_half_a_record_waits(
    scene: Scene, writer: Callable[[Path], Any]
) -> None:
    runs = writer(scene.working / "runs")
    runs.add("x", 1.0, 1, at=1e9)
    scene.follow("tensorboard")
    runs.add("x", 2.0, 2)
    assert scene.poll() == [(2, {"x": 2.0})]
    (path,) = (scene.working / "runs").iterdir()
    runs.add("x", 3.0, 3)
    content = path.read_bytes()
    other = scene.working / "copy" / path.name
    other.parent.mkdir()
    other.write_bytes(content[:-5])
    scene.poll()
    with other.open("ab") as file:
        file.write(content[-5:])
    assert [step for step, _ in scene.poll()][-1:] == [3]


def test_the_writer_of_a_file_is_known_by_its_environment(tmp_path: Path) -> None:
    import subprocess
    import sys

    from pipeline.foreign.whose import belongs_to_another

    path, ours, theirs = tmp_path / "x.csv", tmp_path / "ours", tmp_path / "theirs"
    path.touch()
    assert not belongs_to_another(path, ours)
    code = f"f = open({str(path)!r}, 'a'); print(flush=True); input()"
    environment = {**os.environ, "LADDER_ATTEMPT": str(theirs)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert belongs_to_another(path, ours) and not belongs_to_another(path, theirs)
        process.communicate(b"\n")


@needs_tensorboard
def test_a_damaged_event_file_is_told_of_and_one_that_was_cut_off_is_not(
    scene: Scene, writer: Callable[[Path], Any]
) -> None:
    scene.follow("tensorboard")
    runs = writer(scene.working / "runs")
    for step in range(3):
        runs.add("x", 1.0, step)
    (path,) = (scene.working / "runs").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    scene.poll(to_the_end=True)
    assert remarks(scene.folder) == []
    size = int.from_bytes(whole[:8], "little") + 16
    for number, at in enumerate((size + 20, size + 2)):  # the content of the second record, and its length
        damaged = scene.working / f"other{number}" / path.name
        damaged.parent.mkdir()
        damaged.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    scene.poll(to_the_end=True)
    (warning,) = remarks(scene.folder)
    assert warning.sentence().count("is damaged: what follows its first 1 events cannot be read") == 2
