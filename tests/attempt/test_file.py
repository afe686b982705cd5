"""An attempt's file leads to where it lies."""

from __future__ import annotations

from pathlib import Path

from pipeline.attempt.file import AttemptFile, WarmStart
from pipeline.attempt.folder import AttemptFolder
from tests.conftest import small_config


def test_paths_follow_a_root_that_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    first, second = AttemptFolder.of(old, "first"), AttemptFolder.of(old, "second")
    first.checkpoints.mkdir(parents=True)
    (first.checkpoints / "5.pt").touch()
    starts = [
        WarmStart(checkpoint=str(first.checkpoints / name), run_id="first", episode=5) for name in ("5.pt", "none.pt")
    ]
    file = AttemptFile(
        config=small_config(),
        run_id="second",
        rung="v3",
        number=1,
        folder=str(second.path),
        warm_start=starts[0],
        resume_from=starts[1],
    )
    assert AttemptFile.read(file.write()) == file
    old.rename(new)
    moved = AttemptFile.read(AttemptFolder.of(new, "second").file)
    assert moved.where == AttemptFolder.of(new, "second")
    assert moved.warm_start is not None and moved.resume_from is not None
    assert moved.warm_start.checkpoint == str(AttemptFolder.of(new, "first").checkpoints / "5.pt")
    assert moved.resume_from == starts[1]  # nowhere to be found
