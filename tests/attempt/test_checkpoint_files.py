"""Descriptions of checkpoints, as any program may have written them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.attempt.checkpoint_files import newest, sha256, usable


def checkpoint(folder: Path, name: str, description: str | None = None, step: int = 1) -> Path:
    path = folder / f"{name}.pt"
    path.write_bytes(name.encode())
    told = {"episode": 1, "step": step, "sha256": sha256(path)}
    text = json.dumps(told) if description is None else description.replace("SHA", told["sha256"])
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["step", "episode"])
@pytest.mark.parametrize(
    "value",
    ["Infinity", "-Infinity", "NaN", "1e999", "1e25", "9223372036854775808", "9" * 5000, "-1", "1.5", "null", "[[1]]",
     '"a"', "[" * 100_000, '{"a":' * 100_000, "{}"],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_absurd_numbers_are_damage(key: str, value: str, tmp_path: Path) -> None:
    other = "episode" if key == "step" else "step"
    checkpoint(tmp_path, "bad", f'{{"{key}": {value}, "{other}": 1, "sha256": "SHA"}}')
    good = checkpoint(tmp_path, "good")
    found, problems = usable(tmp_path)
    assert [each.path for each in found] == [str(good)]
    (problem,) = problems
    assert "bad.pt" in problem and "\n" not in problem and len(problem) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "\0", '{"format": [[1]], "episode": 1}', "{" * 3_000_000])
def test_what_is_no_description_is_damage(text: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, "bad", text)
    found, problems = usable(tmp_path)
    assert not found and len(problems) == 1


def test_a_description_that_is_not_text_or_not_a_file_is_damage(tmp_path: Path) -> None:
    checkpoint(tmp_path, "bytes").with_suffix(".json").write_bytes(b"\xff\xfe")
    folder = checkpoint(tmp_path, "folder").with_suffix(".json")
    folder.unlink()
    folder.mkdir()
    (tmp_path / "folder2.pt").mkdir()
    found, problems = usable(tmp_path)
    assert not found and len(problems) == 3


def test_of_two_at_the_same_step_the_newer_one_is_taken(tmp_path: Path) -> None:
    for name, written in (("z", 1), ("a", 2), ("m", 0)):
        os.utime(checkpoint(tmp_path, name, step=7), (written, written))
    checkpoint(tmp_path, "before", step=6)
    assert newest(usable(tmp_path)[0]).path == str(tmp_path / "a.pt")
