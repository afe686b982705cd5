"""Where an experiment goes on whose commands name files of a working folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.experiment.place import Place
from tests.conftest import small_config


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a trainer; another one is beside it."""
    for name in ("project/train", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project" / "train" / "main.py").touch()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def place(*command: str, root: Path | None = None) -> Place:
    return Place.here(small_config(trainer__command=command), root or Path.cwd() / "mlruns")


@pytest.mark.parametrize(
    ("command", "files"),
    [
        (["python", "train/main.py", "--fast"], ("train/main.py",)),
        (["python", "--config=train/main.py"], ("train/main.py",)),
        (["python", "-m", "train.main"], ("train",)),
        (["/bin/sh", "/etc/hostname"], ()),
        (["python", "-c", "print(1)"], ()),
    ],
)
def test_it_knows_what_its_commands_name(project: Path, command: list[str], files: tuple[str, ...]) -> None:
    found = place(*command)
    assert found.files == files and found.folder == str(project) and Place.read(found.model_dump_json()) == found


def test_it_is_where_it_was(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = place("python", "train/main.py")
    monkeypatch.chdir(project.parent / "other")
    assert began.find(project / "mlruns") == project


def test_it_moves_with_its_root(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, renamed = place("python", "train/main.py"), project.parent / "renamed"
    monkeypatch.chdir(project.parent / "other")
    project.rename(renamed)
    assert began.find(renamed / "mlruns") == renamed


def test_else_it_is_here_if_the_files_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, renamed = place("python", "train/main.py", root=Path("/data")), project.parent / "renamed"
    monkeypatch.chdir(project.parent / "other")
    project.rename(renamed)
    with pytest.raises(BadInput, match=rf"began in {project}, which is gone, and .*other has no train/main.py"):
        began.find(Path("/data"))
    project.mkdir()
    with pytest.raises(BadInput, match=rf"began in {project}, which has no train/main.py any more"):
        began.find(Path("/data"))
    monkeypatch.chdir(renamed)
    assert began.find(Path("/data")) == renamed


def test_a_command_that_names_nothing_goes_on_anywhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began = place("my-trainer", "--fast")
    monkeypatch.chdir(project.parent / "other")
    project.rename(project.parent / "renamed")
    assert began.find(Path("/data")) == Path.cwd()
    assert Place.read("") is None and Place.read('{"folder": "/x"') is None
