"""Metrics on their own disk: whole or not at all, once, in order."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipeline.attempt import spool as spool_module
from pipeline.attempt.spool import Report, Spool, SpoolWriter


def steps(reports: list[Report]) -> list[int]:
    return [each.step for each in reports]


def test_reports_come_in_order_and_are_delivered_once(tmp_path: Path) -> None:
    writer = SpoolWriter(Spool(tmp_path))
    for step in range(1, 31):
        assert writer.write({"x": 1.0 * step}, step)
    spool = Spool(tmp_path)
    first, position = spool.pending(20)
    assert steps(first) == list(range(1, 21))
    spool.mark(position)
    again = Spool(tmp_path)  # of another process
    rest, position = again.pending(20)
    assert steps(rest) == list(range(21, 31))
    again.mark(position)
    assert Spool(tmp_path).pending() == ([], position)


def test_what_is_repeated_is_not_reported_again_but_is_a_sign_of_life(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    writer = SpoolWriter(spool)
    assert writer.write({"x": 1.0}, 64) and writer.write({"x": 2.0}, 128)
    continued = SpoolWriter(Spool(tmp_path))
    before = spool.path.stat().st_mtime_ns
    assert not continued.write({"x": 1.0}, 64) and not continued.write({"x": 2.0}, 128)
    assert spool.path.stat().st_mtime_ns != before
    assert continued.write({"x": 3.0}, 192)
    assert steps(spool.read(0)[0]) == [64, 128, 192]


NO_REPORT = b'{"time": 1, "step": 2, "metrics": [3]}\n'


@pytest.mark.parametrize("torn", [b'{"time": 1, "step": 2, "met', b"\0\0\0\0\n", b"\0\0", b"null\n", NO_REPORT])
def test_half_a_line_after_a_power_cut_is_dropped(torn: bytes, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    SpoolWriter(spool).write({"x": 1.0}, 64)
    with spool.path.open("ab") as file:
        file.write(torn)
    assert steps(spool.read(0)[0]) == [64]
    assert SpoolWriter(spool).write({"x": 2.0}, 128)
    assert steps(spool.read(0)[0]) == [64, 128]


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    SpoolWriter(spool).write({"x": math.nan, "y": math.inf, "z": 1.0}, 1)
    assert spool.read(0)[0][0].metrics == {"z": 1.0, "nonfinite_metrics": 2.0}


def test_what_another_trainer_writes_may_be_no_number(tmp_path: Path) -> None:
    line = '{"time": 1, "step": 2, "metrics": {"a": NaN, "b": null, "c": -Infinity, "d": 1}}\n'
    spool = Spool(tmp_path)
    spool.path.write_text(line)
    metrics = spool.read(0)[0][0].metrics
    assert math.isnan(metrics["a"]) and math.isnan(metrics["b"]) and metrics["c"] == -math.inf and metrics["d"] == 1


def test_lost_mark_delivers_everything_once_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    SpoolWriter(spool).write({"x": 1.0}, 1)
    spool.mark(spool.pending()[1])
    (tmp_path / "metrics.delivered").write_text("")
    assert steps(Spool(tmp_path).pending()[0]) == [1]


def test_what_the_store_has_is_not_reported_again_even_if_the_spool_is_lost(tmp_path: Path) -> None:
    writer = SpoolWriter(Spool(tmp_path), reported_step=128)
    assert not writer.write({"x": 1.0}, 128) and writer.write({"x": 1.0}, 192)


def test_late_metrics_neither_wait_for_their_step_nor_hide_others(tmp_path: Path) -> None:
    """The random baseline belongs to the first step, and is there when others have been reported."""
    spool = Spool(tmp_path)
    writer = SpoolWriter(spool)
    assert writer.write({"x": 1.0}, 64) and writer.write({"x": 2.0}, 128)
    writer.write_late({"random/score": 3.0}, 0)
    assert writer.write({"x": 3.0}, 192)
    assert steps(spool.read(0)[0]) == [64, 128, 0, 192]
    continued = SpoolWriter(Spool(tmp_path))
    assert not continued.write({"x": 3.0}, 192) and continued.write({"x": 4.0}, 256)
    continued.write_late({"random/score": 3.0}, 0)  # which the first one has reported
    assert steps(spool.read(0)[0]) == [64, 128, 0, 192, 256]


def line(step: object, value: str = "1.0", time: str = "1") -> bytes:
    return f'{{"time": {time}, "step": {step}, "metrics": {{"x": {value}}}}}\n'.encode()


@pytest.mark.parametrize(
    "bad",
    [
        line(3.5),
        line("null"),
        line('"a"'),
        line(2**63),
        line(-(2**63) - 1),
        line("1e999"),
        line("NaN"),
        line(4, '"much"'),
        line(4, "[1.0]"),
        line(4, time="-1"),
        line(4, time="1e20"),
        line(4)[:-3] + b"\n",
        line(4)[:20] + line(4),
        b"\xff\xfe{}\n",
        b"[" * 100_000 + b"\n",
        b"\0" * 512 + b"\n",
        b"42\n",
        b"{}\n",
        b"a line of a log\n",
        b'{"x": "' + b"a" * 300_000 + b'"}\n',
    ],
    ids=lambda bad: repr(bad[:40]),
)
def test_a_bad_line_is_passed_over_and_told_of_once(
    bad: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "LONGEST_LINE", 200_000)
    spool = Spool(tmp_path)
    spool.path.write_bytes(line(1) + b"\n \n" + bad + line(2) + line(3.0))
    reports, position = spool.pending()
    assert steps(reports) == [1, 2, 3] and position == spool.path.stat().st_size
    (told,) = spool.news()
    assert told.startswith("metrics.jsonl: passed over: line 4: ") and "\n" not in told and len(told) < 200
    spool.mark(position)
    assert spool.pending() == ([], position) and spool.news() == []


def test_of_many_bad_lines_a_few_are_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.path.write_bytes(b"no\n" * 1000 + line(1))
    assert steps(spool.pending()[0]) == [1]
    told = spool.news()
    assert len(told) == 4 and told[-1].endswith("997 more lines")


def test_a_last_line_without_its_end_is_read_when_nothing_follows(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.path.write_bytes(line(1) + line(2)[:-1])
    assert steps(spool.pending()[0]) == [1]
    spool.mark(spool.pending()[1])
    reports, position = spool.pending(ended=True)
    assert steps(reports) == [2] and position == spool.delivered
    with spool.path.open("ab") as file:
        file.write(b"\n" + line(3))
    assert steps(spool.pending()[0]) == [2, 3] and spool.news() == []


def test_what_cannot_be_read_at_all_is_told_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.path.mkdir()
    assert spool.pending() == ([], 0)
    assert spool.news() == ["metrics.jsonl: cannot be read: Is a directory"]
    assert spool.pending() == ([], 0) and spool.news() == []
    spool.remove()
