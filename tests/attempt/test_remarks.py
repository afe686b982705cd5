"""What is known of an attempt beside its verdict outlives the process that has seen it."""

from __future__ import annotations

from pathlib import Path

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.remarks import remark, remarks


def test_subjects_are_kept_apart_and_the_newest_sentences_count(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    assert remarks(folder) == []
    remark(folder, "a", ["one"])
    remark(folder, "b", ["two", "three"])
    remark(folder, "a", ["one more"])
    remark(folder, "b", [])
    assert [(each.rule, each.sentence()) for each in remarks(folder)] == [("a", "one more"), ("b", "two; three")]


def test_of_many_and_long_sentences_the_first_part_is_kept(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    remark(folder, "a", ["x" * 10_000] * 30)
    (warning,) = remarks(folder)
    assert len(warning.sentence()) < 5000 and warning.sentence().endswith("and 20 more")


def test_what_cannot_be_read_or_written_ends_nothing(tmp_path: Path) -> None:
    folder = AttemptFolder(tmp_path)
    folder.remarks.write_text("[1")
    assert remarks(folder) == []
    remark(AttemptFolder(tmp_path / "gone"), "a", ["one"])
    assert not (tmp_path / "gone").exists()
