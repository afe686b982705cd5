"""What a cell of a table says: a number, that there is no number any more, that there is no value, or a text.

A computation that has failed is a value, NaN, however it is spelt. An empty cell is none: sparse tables have many.
Between them stand words such as `null` and `None`: :mod:`pipeline.foreign.presence` decides.
"""

from __future__ import annotations

import math
import re
from typing import Any

_NAN = re.compile(r"[+-]?[sq]?nan(?:[sq]|16|32|64)?(?:\([^()]*\))?|#(?:div/0|num|value)!|[+-]?\d*\.#\w+", re.IGNORECASE)
"""As C, MSVC (`1.#QNAN`, `-nan(ind)`), Julia and spreadsheets write it."""
_INFINITE = re.compile(r"([+-]?)(?:inf(?:inity|16|32|64)?|∞|\d*\.#(?:inf|j)\w*)", re.IGNORECASE)
_MISSING = frozenset({"none", "null", "nil", "undefined", "missing", "na", "n/a", "n.a.", "<na>", "#n/a", "#null!"})
_NOTHING = frozenset({"", "-", "--", "–", "—", "."})
_WRAPPED = re.compile(
    r"(?:tensor|array|Array|(?:np|numpy|torch|jnp)\.\w+)\(\s*\[?\s*([^,()\[\]]+|nan\(\w*\))\s*\]?\s*(?:,.*)?\)"
)
"""A number as PyTorch and NumPy print the object that holds it."""
_DECIMAL_COMMA = re.compile(
    r"[+-]?(?:\d{4,},\d+|0,\d+|\d{1,3},(?:\d{1,2}|\d{4,})|\d{1,3}(?:\.\d{3})+,\d+)(?:[eE][+-]?\d+)?"
)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+\.\d*|(?:,\d{3}){2,})(?:[eE][+-]?\d+)?")
_FORTRAN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[dD][+-]?\d+")


def number_in(cell: Any) -> float | None:
    """The number of a cell, also NaN and ±∞; None: it has none.

    A decimal comma is read, thousands separators too, and of `12%` the 12. `1,234` could be both and is no number, nor
    is one with a unit, because units change.
    """
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except OverflowError:
        return math.copysign(math.inf, 1 if isinstance(cell, int) and cell > 0 else -1)
    except ValueError:
        return _spelt(str(cell).strip().replace("\N{MINUS SIGN}", "-"))


def _spelt(text: str) -> float | None:
    """The number in a text that Python does not take for one."""
    if found := _INFINITE.fullmatch(text):
        return -math.inf if found[1] == "-" else math.inf
    if _NAN.fullmatch(text):
        return math.nan
    if found := _WRAPPED.fullmatch(text):
        return number_in(found[1])
    if text.endswith("%"):
        return number_in(text[:-1])
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    elif _FORTRAN.fullmatch(text):
        text = re.sub("[dD]", "e", text)
    try:
        return float(text)
    except ValueError:
        return None


def says_missing(cell: Any) -> bool:
    """Whether a cell says in a word that it has no value, such as `null`, `None` or `NA`."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING)


def is_empty(cell: Any) -> bool:
    """Whether nothing stands in a cell."""
    return isinstance(cell, str) and cell.strip() in _NOTHING
