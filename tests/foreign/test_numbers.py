"""How numbers, and what is none, are spelt in files of other programs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.foreign.numbers import is_empty, number_in, says_missing


@pytest.mark.parametrize(
    "cell",
    [
        *("nan", "NaN", "NAN", "-nan", "+nan", "nan(ind)", "-nan(ind)", "nan(0x8000)", "NaN32", "snan", "qNaN"),
        *("1.#QNAN", "-1.#IND", "1.#QNAN0", "-1.#IND00", "1.#R", "#DIV/0!", "#NUM!", "#value!", " nan "),
        *("tensor(nan)", "tensor(nan, device='cuda:0')", "tensor([nan])", "np.float32(nan)", "nan%", math.nan),
    ],
)
def test_not_a_number(cell: Any) -> None:
    value = number_in(cell)
    assert value is not None and math.isnan(value)
    assert not says_missing(cell) and not is_empty(cell)


@pytest.mark.parametrize(
    "cell", ["inf", "Inf", "+Infinity", "1.#INF", "1.#INF00", "1.#J", "∞", "Inf32", "tensor(inf)", "1e999", 10**400]
)
def test_infinite(cell: Any) -> None:
    assert number_in(cell) == math.inf
    if isinstance(cell, str) and cell[0] not in "+t":
        assert number_in(f"-{cell}") == -math.inf


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("3.2e-4", 3.2e-4),
        (" +.5 ", 0.5),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567.0),
        ("0,25", 0.25),
        ("-3,14159", -3.14159),
        ("0,125", 0.125),
        ("1.234,5", 1234.5),
        ("2,5e-3", 2.5e-3),
        ("12%", 12.0),
        ("12,5 %", 12.5),
        ("1.5D-03", 1.5e-3),
        ("\N{MINUS SIGN}0.5", -0.5),
        ("tensor(0.25, grad_fn=<NllLossBackward0>)", 0.25),
        ("np.float64(0.25)", 0.25),
    ],
)
def test_numbers(cell: Any, expected: float) -> None:
    assert number_in(cell) == expected


@pytest.mark.parametrize(
    "cell", ["1,234", "0.5 s", "1.2.3", "2026-01-01", "12:30", "diverged", "nano", "inform", "****", True, [1], "e5"]
)
def test_texts(cell: Any) -> None:
    """What could be two numbers is none, nor is one with a unit: units change."""
    assert number_in(cell) is None and not says_missing(cell) and not is_empty(cell)


def test_no_value() -> None:
    assert all(says_missing(cell) for cell in (None, "null", "None", "NA", "N/A", "#N/A", "<NA>", "nil", "undefined"))
    assert all(is_empty(cell) for cell in ("", "  ", "-", "--"))
    assert all(number_in(cell) is None for cell in (None, "null", "NA", "", "-"))
