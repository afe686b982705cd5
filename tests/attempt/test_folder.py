"""What an attempt's folder has when its trainer is gone."""

from __future__ import annotations

from pathlib import Path

from pipeline.attempt.folder import AttemptFolder


def test_leftovers_go_and_everything_else_stays(tmp_path: Path) -> None:
    """A trainer that is killed while it writes leaves half a checkpoint; the next attempt has a folder of its own."""
    folder = AttemptFolder(tmp_path / "attempt")
    for path in (folder.checkpoints, folder.scratch / "nle"):
        path.mkdir(parents=True)
    kept = [folder.file, folder.log, folder.checkpoints / "00000001.pt", folder.checkpoints / "00000001.json"]
    half = [
        *(folder.checkpoints / "00000002.tmp", folder.checkpoints / "00000002.json.tmp"),
        *(folder.path / ".metrics.delivered.tmp", folder.scratch / "nle" / "x"),
    ]
    for path in (*kept, *half):
        path.touch()
    for _ in range(2):
        folder.remove_leftovers()
        assert sorted(path for path in folder.path.rglob("*") if path.is_file()) == sorted(kept)
        assert not folder.scratch.exists()
    AttemptFolder(tmp_path / "never begun").remove_leftovers()
