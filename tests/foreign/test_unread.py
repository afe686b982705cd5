"""Nothing that is not a number vanishes from a script's files: it is NaN, or it is told of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.remarks import remarks
from pipeline.foreign.tables import CsvTail, JsonTail
from tests.foreign.test_follow import Scene

WORDS = ["null", "None", "NA", "N/A", "nil", "undefined"]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def json_rows(path: Path, *lines: str) -> tuple[JsonTail, list[dict[str, float]]]:
    file = path / "log.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    tail = JsonTail(file)
    return tail, [row.metrics for row in tail.read(to_the_end=True)]


def csv_rows(path: Path, *lines: str, **how: Any) -> tuple[CsvTail, list[tuple[int, dict[str, float]]]]:
    file = path / "log.csv"
    file.write_text("".join(f"{line}\n" for line in lines), **how)
    tail = CsvTail(file)
    return tail, [(row.step, row.metrics) for row in tail.read(to_the_end=True)]


@pytest.mark.parametrize("word", ["nan", "-nan", "NaN", "nan(ind)", "1.#QNAN", '"nan"', '"-nan(ind)"', "#DIV/0!"])
def test_nan_in_json_lines(word: str, tmp_path: Path) -> None:
    tail, (row,) = json_rows(tmp_path, f'{{"step": 1, "loss": {word}, "name": "a, nan: b"}}')
    assert math.isnan(row["loss"]) and tail.remarks() == []


@pytest.mark.parametrize(
    ("word", "value"), [("inf", math.inf), ("-Infinity", -math.inf), ("-inf", -math.inf), ("+0.5", 0.5), (".5", 0.5)]
)
def test_other_numbers_that_json_does_not_know(word: str, value: float, tmp_path: Path) -> None:
    _, (row,) = json_rows(tmp_path, f'{{"step": 1, "loss": [nan, 1], "a": {{"b": {word}}}, "ok": True}}')
    assert row == {"a/b": value}


@pytest.mark.parametrize("word", [*WORDS, '"None"'])
def test_a_word_in_place_of_a_number_is_nan_where_there_always_was_one(word: str, tmp_path: Path) -> None:
    lines = [f'{{"step": {step}, "loss": {0.5 if step < 5 else word}, "lr": 0.1}}' for step in range(8)]
    _, rows = json_rows(tmp_path, *lines)
    assert [math.isnan(row["loss"]) for row in rows] == [False] * 5 + [True] * 3
    lines = ["step,loss,lr", *(f"{step},{0.5 if step < 5 else word},0.1" for step in range(8))]
    _, table = csv_rows(tmp_path, *lines)
    assert [math.isnan(row["loss"]) for _, row in table] == [False] * 5 + [True] * 3


@pytest.mark.parametrize("word", [*WORDS, ""])
def test_a_word_in_a_metric_with_gaps_is_no_value(word: str, tmp_path: Path) -> None:
    """As of an evaluation at every tenth row, and of rows of two kinds in one table."""
    lines = ["step,loss,val_loss", *(f"{step},0.5,{0.4 if step % 10 == 0 else word}" for step in range(60))]
    tail, rows = csv_rows(tmp_path, *lines)
    assert not any(math.isnan(value) for _, row in rows for value in row.values()) and tail.remarks() == []
    kinds = [f"{step},{word},0.4" if step % 20 == 19 else f"{step},0.5,{word}" for step in range(60)]
    tail, rows = csv_rows(tmp_path, "step,loss,val_loss", *kinds)
    assert not any(math.isnan(value) for _, row in rows for value in row.values()) and tail.remarks() == []


def test_a_loss_that_never_was_a_number_is_told_of(tmp_path: Path) -> None:
    tail, _ = json_rows(
        tmp_path, *(f'{{"step": {step}, "loss": null, "val_loss": null, "lr": 1}}' for step in range(9))
    )
    assert [said.removeprefix(f"{tail.path}: ") for said in tail.remarks()] == ["loss is null in all of 9 rows"]
    values = [0.5, *["null"] * 30]
    tail, _ = json_rows(tmp_path, *(f'{{"i": {step}, "loss": {each}}}' for step, each in enumerate(values)))
    assert tail.remarks()[0].endswith("loss is null in the last 30 rows")


def test_lines_that_are_passed_over_are_told_once_and_counted_at_the_end(scene: Scene) -> None:
    scene.follow("jsonl")
    path = scene.folder.path / "out.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo\n' + "x" * 200 + "\n[1]\n\n")
    scene.poll()
    (said,) = scene.follower.news()
    assert f"{path}: 3 lines are no JSON object, passed over" in said and '{"step": 2, "lo' in said
    with path.open("a") as file:
        file.write("{'step': 3}\n")
    scene.poll(to_the_end=True)
    assert list(scene.follower.news()) == []
    (warning,) = remarks(scene.folder)
    assert warning.rule == "trainer.metrics" and "4 lines are no JSON object" in warning.sentence()
    assert "\n" not in warning.sentence() and len(warning.sentence()) < 400


@pytest.mark.parametrize(
    ("line", "expected", "row"),
    [
        ("3,1,0.5,9", "1 line is longer than the header, passed over; the first: 3,1,0.5,9", None),
        ("3,1", "1 line is shorter than the header, read as far as they go", {"a": 1.0}),
        ('3,"1,2', "1 line is no line of a table", None),
        ("nan,1,2", "1 line without a number for the step", None),
        ("x,1,2", "1 line without a number for the step", None),
        ("3,oops,2", "1 value is no number in a column of numbers, passed over; the first: a: oops", {"b": 2.0}),
        ('3,"1,234",2', "the first: a: 1,234", {"b": 2.0}),
        ("3,1,2,,", None, {"a": 1.0, "b": 2.0}),
        ("3,,2", None, {"b": 2.0}),
        ("# 3,1,2", None, None),
        ("step,a,b", None, None),
        ('3,"1,234.5",2', None, {"a": 1234.5, "b": 2.0}),
        ("3,\ufffd\0,2", "the first: a: \ufffd\\x00", {"b": 2.0}),
    ],
)
def test_odd_lines_of_a_table(line: str, expected: str | None, row: dict[str, float] | None, tmp_path: Path) -> None:
    tail, rows = csv_rows(tmp_path, "step,a,b", "1,1,1", "2,1,1", line, "4,1,1")
    assert [step for step, _ in rows] == ([1, 2, 4] if row is None else [1, 2, 3, 4])
    assert row is None or rows[2] == (3, row)
    assert len(tail.remarks()) == (expected is not None)
    assert expected is None or expected in tail.remarks()[0]


def test_open_quotes_swallow_no_other_line(tmp_path: Path) -> None:
    tail, rows = csv_rows(tmp_path, "step,a", '1,"x', *(f"{step},1" for step in range(2, 90)))
    assert [step for step, _ in rows] == list(range(2, 90)) and "1 line is no line of a table" in tail.remarks()[0]
    _, rows = csv_rows(tmp_path, "step,a,b", '1,"two', 'lines",3', "2,x,3")
    assert rows == [(1, {"b": 3.0}), (2, {"b": 3.0})]


def test_a_table_as_other_programs_write_it(tmp_path: Path) -> None:
    _, rows = csv_rows(tmp_path, "step;loss", "1;0,5", "2;1,234", "3;nan", encoding="utf-8-sig")
    assert rows[:2] == [(1, {"loss": 0.5}), (2, {"loss": 1.234})] and math.isnan(rows[2][1]["loss"])
    _, rows = csv_rows(tmp_path, "step\tloss", "1\t0.5")
    assert rows == [(1, {"loss": 0.5})]
    tail, rows = csv_rows(tmp_path, "step,loss", "1,0.5", encoding="utf-16")
    assert rows == [] and "is UTF-16" in tail.remarks()[0]
    tail, rows = csv_rows(tmp_path, "1,0.5", "2,0.4")
    assert "has no header" in tail.remarks()[0]
    tail, rows = csv_rows(tmp_path, "step loss", "1 0.5", "2 0.5")
    assert rows == [] and "2 lines without any number" in tail.remarks()[0]
    _, (row,) = json_rows(tmp_path, '\ufeff{"step": 1, "text": "a\u2028b", "loss": 1}')
    assert row == {"loss": 1.0}


def test_a_script_that_is_started_again_may_add_another_header(tmp_path: Path) -> None:
    tail, rows = csv_rows(tmp_path, "step,a,b", "1,1,1", "step,a,b,c", "2,1,1,5")
    assert rows == [(1, {"a": 1.0, "b": 1.0}), (2, {"a": 1.0, "b": 1.0, "c": 5.0})] and tail.remarks() == []


def test_the_rows_of_two_files_have_different_times(scene: Scene) -> None:
    scene.follow("csv")
    for name in ("a", "b"):
        (scene.folder.path / f"{name}.csv").write_text(f"step,{name}\n1,1\n2,1\n")
    scene.follower.poll()
    from pipeline.attempt.spool import Spool

    reports, _ = Spool(scene.folder.path).pending()
    times = [each.time for each in reports]
    assert times[0] == times[1] < times[2] == times[3]
