"""Histories from files: long and wide tables, gaps, and clear errors."""

from __future__ import annotations

import math
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
        assert history.series("loss")[0].tolist()[:2] == [10, 20] and math.isnan(history.series("loss")[1][1])


def test_what_is_not_finite_was_logged_and_empty_cells_were_not(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("step,loss,score,none\n1,NaN,,\n2,-inf,None,NA\n3.0,1.797e308,null, \n")
    history = History.read_csv(path)
    assert history.metrics == ("loss",)
    steps, values = history.series("loss")
    assert steps.tolist() == [1, 2, 3] and math.isnan(values[0]) and values[1:].tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize("text", ["loss\n1\n", "step,loss\nten,1\n", ""])
def test_no_such_table(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError):
        History.read_csv(path)
