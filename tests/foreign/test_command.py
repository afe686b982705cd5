"""The command of a trainer: what stands in the places of its placeholders, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate
from pipeline.foreign.command import Filling, fill
from pipeline.foreign.flags import words_of

PARAMETERS: dict[str, Any] = {"lr": 0.1, "layers": [64, 32], "cuda": False, "optim": {"beta": -1e-4}, "name": "a b"}


def config(**trainer: Any) -> ExperimentConfig:
    return ExperimentConfig().with_values({f"trainer.{key}": value for key, value in trainer.items()})


def filled(*command: str, checkpoint: str | None = None) -> list[str]:
    filling = Filling(config(command=command, parameters=PARAMETERS), "/there", checkpoint)
    return list(fill(filling.config.trainer.command or (), filling))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--lr={parameters.lr}", ["--lr=0.1"]),
        ("{parameters.lr}", ["0.1"]),
        ("{trainer.parameters.lr}", ["0.1"]),
        ("{parameters.optim.beta}", ["-0.0001"]),
        ("{parameters.layers}", ["64", "32"]),
        ("layers={parameters.layers}", ["layers=[64,32]"]),
        ("{parameters.cuda}", ["false"]),
        ("{parameters.name}", ["a b"]),
        ("{folder}/{seed}", ["/there/1"]),
        ("{python}", [sys.executable]),
        ("--total={training.episodes}", ["--total=5000"]),
        ("{{{seed}}}", ["{1}"]),
        ('{{"a": {{}}}}', ['{"a": {}}']),
        ("plain", ["plain"]),
    ],
)
def test_placeholders(word: str, expected: list[str]) -> None:
    assert filled("train", word) == ["train", *expected]


@pytest.mark.parametrize(
    ("words", "without", "with_one"),
    [
        (["--resume", "{checkpoint}"], [], ["--resume", "a.pt"]),
        (["--resume={checkpoint}"], [], ["--resume=a.pt"]),
        (["resume_from={checkpoint}"], [], ["resume_from=a.pt"]),
        (["{checkpoint}"], [], ["a.pt"]),
        (["--lr=1", "{checkpoint}"], ["--lr=1"], ["--lr=1", "a.pt"]),
        (["fit", "{checkpoint}", "--x"], ["fit", "--x"], ["fit", "a.pt", "--x"]),
    ],
)
def test_what_is_left_out_without_a_checkpoint(words: list[str], without: list[str], with_one: list[str]) -> None:
    assert filled("train", *words) == ["train", *without]
    assert filled("train", *words, checkpoint="a.pt") == ["train", *with_one]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("argparse", ["--lr=0.1", "--layers", "64", "32", "--optim.beta=-0.0001", "--name=a b"]),
        ("tyro", ["--lr=0.1", "--layers", "64", "32", "--no-cuda", "--optim.beta=-0.0001", "--name=a b"]),
        ("hydra", ["lr=0.1", "layers=[64,32]", "cuda=false", "optim.beta=-0.0001", "name=a b"]),
    ],
)
def test_all_parameters_as_words(style: Any, expected: list[str]) -> None:
    assert words_of(PARAMETERS, style) == expected
    if style != "tyro":
        assert filled("{hydra}" if style == "hydra" else "{flags}") == expected


@pytest.mark.parametrize(
    ("style", "value", "expected"),
    [
        ("argparse", True, ["--x"]),
        ("argparse", None, []),
        ("tyro", {"y": False}, ["--x.no-y"]),
        ("tyro", None, []),
        ("hydra", None, ["x=null"]),
        ("argparse", [], []),
        ("hydra", [], ["x=[]"]),
    ],
)
def test_values_that_are_no_number(style: Any, value: Any, expected: list[str]) -> None:
    assert words_of({"x": value}, style) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("[python, '--lr={parameters.lrr}']", ["unknown placeholder {parameters.lrr}", "nearest: {parameters.lr}"]),
        ("[python, '{sed}']", ["unknown placeholder {sed}", "nearest: {seed}"]),
        ("[python, '{training.episode}']", ["unknown placeholder", "nearest: {training.episodes}"]),
        ("[python, '{}']", ["unknown placeholder {}", "written twice"]),
        ("[python, 'a{b']", ["single {", "write {{"]),
        ("[python, '--x={flags}']", ["{flags}", "several words", "--x={flags}"]),
        ("['{checkpoint}']", ["trainer.command", "names no program"]),
        ("[python, '--lr=${trainer.parameters.lr}']", ["${trainer.parameters.lr}", "{parameters.lr}"]),
        ("[python, '${training.seed}']", ["${training.seed}", "{seed}"]),
        ("[python, '${..parameters.lr}']", ["${..parameters.lr}", "{parameters.lr}"]),
        ("python train.py", ["trainer.command", "must be a list of words", "'python train.py'"]),
        ("[python, true]", ["trainer.command", "texts or numbers", "True"]),
        ("[]", ["trainer.command"]),
    ],
)
def test_refused_in_one_line(command: str, expected: list[str]) -> None:
    with pytest.raises(BadInput) as refusal:
        validate(merge({}, [f"trainer.command={command}", "trainer.parameters.lr=0.1", "ladder.rungs=[v3]"], "x"), "x")
    said = str(refusal.value)
    assert all(part in said for part in ["trainer.command", *expected]) and "\n" not in said, said


def test_the_placeholders_of_every_rung_are_checked() -> None:
    rungs = "ladder.rungs=[v3,{name: bare, set: {trainer.command: [a, '{parameters.rate}']}}]"
    with pytest.raises(BadInput, match=r"unknown placeholder \{parameters.rate\}"):
        validate(merge({}, ["trainer.command=[a,'{parameters.lr}']", "trainer.parameters.lr=1", rungs], "x"), "x")


def test_numbers_need_no_quotes_and_the_environment_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "/data")
    words = ["trainer.command=[python,train.py,--epochs,3,--lr,1e-3,'${oc.env:WHERE}']", "ladder.rungs=[v3]"]
    command = validate(merge({}, words, "x"), "x").trainer.command
    assert command == ("python", "train.py", "--epochs", "3", "--lr", "0.001", "/data")
