"""What an attempt's folder has when its trainer is gone."""

from __future__ import annotations

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from pipeline.attempt.folder import AttemptFolder, remove_scratch


def test_leftovers_go_and_everything_else_stays(tmp_path: Path) -> None:
    """A trainer that is killed while it writes leaves half a checkpoint; the next attempt has a folder of its own."""
    folder = AttemptFolder(tmp_path / "attempt")
    folder.checkpoints.mkdir(parents=True)
    scratch = folder.make_scratch()
    (scratch / "nle").mkdir()
    kept = [folder.file, folder.log, folder.checkpoints / "00000001.pt", folder.checkpoints / "00000001.json"]
    half = [
        *(folder.checkpoints / "00000002.tmp", folder.checkpoints / "00000002.json.tmp"),
        *(folder.path / ".metrics.delivered.tmp", scratch / "nle" / "x"),
    ]
    for path in (*kept, *half):
        path.touch()
    for _ in range(2):
        folder.remove_leftovers()
        assert sorted(path for path in folder.path.rglob("*") if path.is_file()) == sorted(kept)
        assert not scratch.exists()
    AttemptFolder(tmp_path / "never begun").remove_leftovers()


@pytest.mark.parametrize("length", [5, 60, 200])
def test_sockets_fit_into_the_scratch_folder(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the root's path is, or that of the user's temporary files."""
    temporary, root = tmp_path / ("t" * length), tmp_path / ("r" * 200)
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    folder = AttemptFolder(root / "attempt")
    folder.path.mkdir(parents=True)
    scratch = folder.make_scratch()
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700 and not list(scratch.iterdir())
    with socket.socket(socket.AF_UNIX) as listener:  # where Python's multiprocessing has its own
        (scratch / "pymp-abcdefgh").mkdir()
        listener.bind(str(scratch / "pymp-abcdefgh" / "listener-abcdefgh"))
    AttemptFolder(root / "attempt").remove_leftovers()  # by another process
    assert not scratch.exists() and not folder.scratch_note.exists()


def test_one_scratch_folder_an_attempt(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    first, second = folder.make_scratch(), folder.make_scratch()
    assert first != second and not first.exists()
    folder.remove_leftovers()
    assert not second.exists()


def test_without_a_place_for_temporary_files_the_attempts_folder_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr("pipeline.attempt.folder._SHORT", ("/nowhere/else",))
    scratch = AttemptFolder(tmp_path).make_scratch()
    assert scratch.parent == tmp_path
    AttemptFolder(tmp_path).remove_leftovers()
    assert not scratch.exists()


@pytest.mark.parametrize("noted", ["", "/", "precious", "ladder-01234567", "link", "/ladder-../precious", "\0"])
def test_a_note_of_another_folder_removes_nothing(noted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = AttemptFolder(tmp_path / "attempt")
    for path in (folder.path, tmp_path / "precious", tmp_path / "ladder-01234567"):
        path.mkdir()
    link = tmp_path / "ladder-abcdefab"
    link.symlink_to(tmp_path / "precious")
    where = {"link": str(link), "precious": str(tmp_path / "precious")}.get(noted, noted)
    folder.scratch_note.write_text(where)
    folder.remove_leftovers()
    assert (tmp_path / "precious").is_dir() and (tmp_path / "ladder-01234567").is_dir()


def test_a_scratch_folder_goes_also_where_its_note_is_gone(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path / "attempt")
    folder.path.mkdir()
    scratch = folder.make_scratch()
    folder.scratch_note.unlink()
    folder.path.rmdir()
    folder.remove_leftovers()
    remove_scratch(scratch)
    remove_scratch(tmp_path)
    assert not scratch.exists() and tmp_path.exists()
