"""A file that a thread writes anew: when, and what it leaves undisturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.callbacks import rewriting
from pipeline.callbacks.rewriting import Rewriting, Rhythm
from pipeline.errors import StoreAway


def written(seconds: int, took: float, verdicts: tuple[int, ...] = ()) -> list[int]:
    """The seconds at which a writing begins, each of which takes so long; an attempt runs after each verdict."""
    rhythm, begun, busy = Rhythm(), [], -1.0
    rhythm.attempt_started(0)
    for now in range(seconds):
        if now in verdicts:
            rhythm.attempt_ended(now)
            rhythm.attempt_started(now)
        if busy >= 0 and now >= busy:
            rhythm.wrote(busy, took)
            busy = -1.0
        if busy < 0 and now >= rhythm.due:
            rhythm.taken()
            begun.append(now)
            busy = now + took
    return begun


def test_once_a_minute_and_at_each_verdict() -> None:
    assert written(200, 0.5) == [10, 71, 132, 193]
    assert written(200, 0.5, verdicts=(100,)) == [10, 71, 101, 162]
    assert written(200, 0.5, verdicts=(5,)) == [6, 67, 128, 189]
    assert written(60, 0.5, verdicts=(20, 30, 40)) == [10, 21, 31, 41]


@pytest.mark.parametrize("took", [1.5, 3.0, 10.0, 40.0])
@pytest.mark.parametrize("verdicts", [(), tuple(range(100, 20_000, 100))], ids=["one attempt", "many verdicts"])
def test_a_slow_writing_takes_two_percent_of_the_time(took: float, verdicts: tuple[int, ...]) -> None:
    begun = written(20_000, took, verdicts if took > 2 else ())
    assert len(begun) >= 2
    assert took * (len(begun) - 1) <= 0.0205 * (begun[-1] - begun[0])


def test_without_an_attempt_at_work_nothing_is_due() -> None:
    rhythm = Rhythm()
    assert rhythm.due > 1e9
    rhythm.attempt_started(0)
    rhythm.attempt_ended(3)
    assert rhythm.due == 4
    rhythm.taken()
    rhythm.wrote(5, 1)
    assert rhythm.due > 1e9


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(rewriting, "_VERDICT_SECONDS", 0.0)
    monkeypatch.setattr(rewriting, "_EVERY_SECONDS", 0.05)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come")


@pytest.mark.usefixtures("soon")
def test_an_error_is_told_once_and_a_store_that_is_away_is_none(tmp_path: Path) -> None:
    answers = iter([StoreAway("away"), ValueError("odd"), ValueError("odd"), "1", ValueError("odd"), "2"])
    told: list[str] = []

    def make() -> str:
        answer = next(answers, "3")
        if isinstance(answer, Exception):
            raise answer
        return answer

    writer = Rewriting(make, tmp_path / "page", told.append)
    writer.attempt_started()
    until(lambda: (tmp_path / "page").exists() and (tmp_path / "page").read_text() == "3")
    writer.end()
    assert len(told) == 2 and all("ValueError: odd" in each for each in told)


@pytest.mark.usefixtures("soon")
def test_a_writing_that_hangs_holds_up_nothing_and_writes_nothing_later(tmp_path: Path) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        go_on.wait(20)
        return "late"

    writer = Rewriting(make, tmp_path / "page", lambda line: pytest.fail(line))
    began = time.monotonic()
    writer.attempt_started()
    assert begun.wait(5)
    writer.attempt_ended()
    writer.attempt_started()
    assert time.monotonic() - began < 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewriting, "_LEAVE_SECONDS", 0.1)
        writer.end()
    (tmp_path / "page").write_text("the last one")
    go_on.set()
    writer.end()
    assert (tmp_path / "page").read_text() == "the last one"


@pytest.mark.usefixtures("soon")
def test_what_cannot_be_written_is_told_and_the_old_content_stands(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "page").mkdir()
    writer = Rewriting(lambda: "x", tmp_path / "page", told.append)
    writer.attempt_started()
    until(lambda: bool(told))
    writer.end()
    assert (tmp_path / "page").is_dir() and [each.name for each in tmp_path.iterdir()] == ["page"]


@pytest.mark.usefixtures("soon")
def test_a_writer_that_never_began_can_be_ended(tmp_path: Path) -> None:
    Rewriting(lambda: "x", tmp_path / "page", lambda line: pytest.fail(line)).end()
    assert not (tmp_path / "page").exists()
