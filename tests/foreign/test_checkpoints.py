"""Checkpoints that a script writes of itself: kept when they are complete, with their step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.checkpoint_files import usable
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate
from pipeline.foreign.checkpoints import Collector, _most_dispensable


def configured(*words: str) -> ExperimentConfig:
    return validate(merge({}, ["trainer.command=[train,'{checkpoint}']", *words], "x"), "x")


class Scene:
    """An attempt whose script writes checkpoints into the folder in which it runs."""

    def __init__(self, path: Path, checkpoints: str) -> None:
        self.working, root = path / "work", path / "root"
        self.folder = AttemptFolder(root / "attempts" / "a")
        for each in (self.working, self.folder.path):
            each.mkdir(parents=True)
        config = configured(f"trainer.checkpoints={checkpoints}")
        collector = Collector.of(config, self.folder, self.working, root)
        assert collector is not None
        self.collector = collector

    def write(self, name: str, text: str = "weights") -> Path:
        path = self.working / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def look(self, step: int = 0) -> None:
        self.collector._look_again = 0.0
        self.collector.poll(step)

    @property
    def kept(self) -> list[tuple[int, str]]:
        good, bad = usable(self.folder.checkpoints)
        assert not bad, bad
        return [(each.step, Path(each.path).name) for each in good]


SB3 = "sb3"


def test_complete_when_two_looks_find_the_same(tmp_path: Path) -> None:
    scene = Scene(tmp_path, SB3)
    path = scene.write("logs/rl_model_1000_steps.zip", "half")
    scene.look()
    path.write_text("half and half")
    scene.look()
    assert scene.kept == []
    scene.look()
    assert scene.kept == [(1000, "rl_model_1000_steps.zip")]
    scene.look()
    assert len(scene.kept) == 1


@pytest.mark.parametrize("in_order", [True, False])
def test_the_last_one_counts_only_if_the_script_ended_by_itself(in_order: bool, tmp_path: Path) -> None:
    scene = Scene(tmp_path, SB3)
    scene.write("rl_model_10_steps.zip")
    scene.look()
    scene.write("rl_model_20_steps.zip")
    scene.collector.finish(in_order=in_order)
    assert [step for step, _ in scene.kept] == ([10, 20] if in_order else [10])


def test_it_outlives_the_scripts_own_tidying_up_at_no_cost(tmp_path: Path) -> None:
    scene = Scene(tmp_path, SB3)
    path = scene.write("rl_model_10_steps.zip")
    scene.look(), scene.look()
    (kept,) = usable(scene.folder.checkpoints)[0]
    assert Path(kept.path).samefile(path)
    path.unlink()
    assert Path(kept.path).read_text() == "weights" and scene.kept == [(10, "rl_model_10_steps.zip")]


def test_one_that_is_overwritten_later_is_not_used(tmp_path: Path) -> None:
    scene = Scene(tmp_path, SB3)
    path = scene.write("rl_model_10_steps.zip")
    scene.look(), scene.look()
    path.write_text("something else")
    good, (problem,) = usable(scene.folder.checkpoints)
    assert good == () and "changed since" in problem


def test_a_file_without_a_step_in_its_name_has_that_of_the_metrics_and_is_copied(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "{pattern: last.pt}")
    for step in (5, 10):
        path = scene.write("last.pt", f"weights {step}")
        os.utime(path, (step, step))
        scene.look(step), scene.look(step + 1)
    assert scene.kept == [(6, "last.pt"), (11, "last.pt")]
    texts = [Path(each.path).read_text() for each in usable(scene.folder.checkpoints)[0]]
    assert texts == ["weights 5", "weights 10"]


@pytest.mark.parametrize(
    ("preset", "name", "step"),
    [
        ("sb3", "logs/rl_model_2000_steps.zip", 2000),
        ("sb3", "logs/best_model.zip", None),
        ("lightning", "lightning_logs/version_0/checkpoints/epoch=3-step=400.ckpt", 400),
        ("lightning", "checkpoints/last.ckpt", None),
        ("huggingface", "out/checkpoint-500/model.safetensors", 500),
    ],
)
def test_presets(preset: str, name: str, step: int | None, tmp_path: Path) -> None:
    scene = Scene(tmp_path, preset)
    scene.write(name)
    scene.look(), scene.look()
    assert [step for step, _ in scene.kept] == ([step] if step is not None else [])


def test_a_folder_is_complete_as_a_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "huggingface")
    scene.write("out/checkpoint-5/model.bin")
    scene.look()
    scene.write("out/checkpoint-5/trainer_state.json")
    scene.look()
    assert scene.kept == []
    scene.look()
    (kept,) = usable(scene.folder.checkpoints)[0]
    shutil.rmtree(scene.working / "out")
    assert {path.name for path in Path(kept.path).iterdir()} == {"model.bin", "trainer_state.json"}
    (Path(kept.path) / "model.bin").unlink()
    assert usable(scene.folder.checkpoints)[0] == ()


def test_those_of_an_earlier_attempt_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir(parents=True)
    (tmp_path / "root" / "attempts" / "a").mkdir(parents=True)
    old = tmp_path / "work" / "rl_model_10_steps.zip"
    old.write_text("old")
    folder = AttemptFolder(tmp_path / "root" / "attempts" / "a")
    collector = Collector.of(configured("trainer.checkpoints=sb3"), folder, tmp_path / "work", tmp_path / "root")
    assert collector is not None
    collector.finish(in_order=True)
    assert usable(folder.checkpoints) == ((), ())
    old.write_text("written again")
    collector.finish(in_order=True)
    assert [each.step for each in usable(folder.checkpoints)[0]] == [10]


def test_so_many_are_kept_the_newest_two_and_the_oldest_among_them(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "{pattern: '*.zip', step: '_([0-9]+)', keep: 4}")
    for step in range(1, 31):
        scene.write(f"x_{step}.zip")
        scene.collector.finish(in_order=True)
    steps = [step for step, _ in scene.kept]
    assert len(steps) == 4 and steps[-2:] == [29, 30] and steps[0] == 1 and 5 < steps[1] < 28
    assert len(list(scene.folder.kept.iterdir())) == 8
    assert _most_dispensable([1, 2, 3]) == 0


def test_what_cannot_be_kept_is_said_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, SB3)
    scene.folder.kept.touch()  # stands for a full disk
    scene.write("rl_model_10_steps.zip")
    scene.look(), scene.look(), scene.look()
    (said,) = scene.collector.news()
    assert "rl_model_10_steps.zip is not kept" in said and scene.collector.news() == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sb4", ["trainer.checkpoints", "unknown preset 'sb4'", "sb3, lightning, huggingface"]),
        ("{pattern: 'a*', step: '('}", ["trainer.checkpoints", "regular expression"]),
        ("{pattern: 'a*', step: abc}", ["trainer.checkpoints", "one group"]),
        ("{step: mtime}", ["trainer.checkpoints.pattern", "missing"]),
        ("{pattern: a, keep: 1}", ["trainer.checkpoints.keep"]),
    ],
)
def test_refused_in_one_line(value: Any, expected: list[str]) -> None:
    with pytest.raises(BadInput) as refusal:
        configured(f"trainer.checkpoints={value}")
    said = str(refusal.value)
    assert all(part in said for part in expected) and "\n" not in said, said


def test_a_script_without_the_setting_or_this_projects_trainer_has_none(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    assert Collector.of(configured(), folder, tmp_path, tmp_path) is None
    assert Collector.of(ExperimentConfig(), folder, tmp_path, tmp_path) is None
