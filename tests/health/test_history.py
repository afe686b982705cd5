"""Histories from files: long and wide tables, gaps, and clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.health.history import History


def test_wide_and_long_tables_say_the_same(tmp_path: Path) -> None:
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    wide.write_text("# a comment\nstep,loss,score\n10,1.5,\n20,nan,3\n30,,4\n")
    long.write_text("step,metric,value\n30,score,4\n10,loss,1.5\n20,score,3\n20,loss,nan\n")
    for path in (wide, long):
        history = History.read_csv(path)
        assert set(history.metrics) == {"loss", "score"}
        steps, values = history.series("score")
        assert (steps.tolist(), values.tolist()) == ([20, 30], [3.0, 4.0])
        assert history.series("loss")[0].tolist() == [10]


@pytest.mark.parametrize("text", ["loss\n1\n", "step,loss\nten,1\n", ""])
def test_no_such_table(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError):
        History.read_csv(path)
