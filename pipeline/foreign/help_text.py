"""The flags of a script, as what it prints for `--help` tells them: argparse, tyro, click, typer, jsonargparse."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BOX = re.compile(r"[│┃|]?\s*$|^[│┃|]")
_OPTION = re.compile(r"^\s*(-{1,2}[A-Za-z]\S*.*)$")
_FORM = re.compile(r"(?<!\S)(-{1,2}[A-Za-z][\w.\-]*)(?:[ =](?=[^\s,/-])|=)?")
_DEFAULT = re.compile(r"\bdefaults?(?:\s*[:=]|\s+(?:to|is))\s*'?([^\s'\"),;\]]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Flag:
    """One option of a script."""

    name: str
    """As it is written, such as `--learning-rate`; the long form where there are several."""
    default: Any = None
    """None: it has none, or it is not known."""
    takes_value: bool = True
    text: str = ""
    """What the script says of it."""
    others: tuple[str, ...] = ()
    """Its other forms, such as `-n`."""

    @property
    def key(self) -> str:
        """Its name as a parameter."""
        return self.name.lstrip("-")

    @property
    def plain(self) -> str:
        """Its last word, in small letters and underscores: `learning_rate` of `--optim.learning-rate`."""
        return plain_of(self.name)

    @property
    def number(self) -> float | int | None:
        """The default, if that is a number."""
        usable = isinstance(self.default, int | float) and not isinstance(self.default, bool)
        return self.default if usable else None


def plain_of(name: str) -> str:
    """The last word of a flag's name, in small letters and underscores."""
    return name.lstrip("-").rpartition(".")[2].replace("-", "_").lower()


def value_of(text: str) -> Any:
    """A default as Python would have it: numbers and None as such, everything else as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None if text in ("null", "") else text


def flags_in(text: str) -> list[Flag]:
    """The options of a help text, in its order."""
    return [flag for head, said in _entries(text) if (flag := _flag(head, said)) is not None]


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Each option: its forms, and what is said of it, in one line."""
    head, said = "", list[str]()
    for line in text.splitlines():
        line = _BOX.sub("", _BOX.sub("", line)).rstrip()
        if found := _OPTION.match(line):
            if head:
                yield head, " ".join(said)
            head, _, rest = re.sub(r"\s{2,}", "\n", found[1].strip(), count=1).partition("\n")
            said = [rest.strip()]
        elif head and line.strip():
            said.append(line.strip())
    if head:
        yield head, " ".join(said)


def _flag(head: str, said: str) -> Flag | None:
    forms = [(found[1], found[0] != found[1]) for found in _FORM.finditer(head.replace(",", " , ").replace("/", " / "))]
    long = [name for name, _ in forms if name.startswith("--") and not plain_of(name).startswith("no_")]
    if not long or long[0] == "--help":
        return None
    switched = any(plain_of(name).startswith("no_") for name, _ in forms)
    takes_value = not switched and (
        any(has for _, has in forms) or bool(re.match(r"(?:[A-Z_]{2,}|<\w+>)(?:\s|$)", said))
    )
    defaults = _DEFAULT.findall(said)
    return Flag(
        name=long[0],
        default=value_of(defaults[-1].rstrip(".")) if defaults else None,
        takes_value=takes_value,
        text=said,
        others=tuple(name for name, _ in forms if name != long[0]),
    )
