"""Whether a script speaks to MLflow, as far as its sources tell."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.foreign.source import read

_BY_THEMSELVES = ("transformers", "trl", "setfit", "sentence_transformers", "ultralytics")
"""Libraries that log to MLflow without being asked, where it is installed."""
_WORD = re.compile(rb"mlflow", re.IGNORECASE)


def may_speak_to_mlflow(command: Sequence[str], folder: Path) -> bool:
    """Whether a command may log to MLflow: its script, or a file of Python beside it, names it.

    True also where the script is not found, so that nothing is known.

    Args:
        folder: the one in which the command runs.
    """
    script = next(_scripts(command, folder), None)
    if script is None:
        return True
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        facts = read(script)
        return facts.imports(*_BY_THEMSELVES) or any(map(_names_it, facts.files))
    return True


def _scripts(command: Sequence[str], folder: Path) -> Iterator[Path]:
    """The files of Python that a command names, as such or as a module."""
    for index, word in enumerate(command[1:], start=1):
        candidates = [folder / word] if word.endswith(".py") else []
        if command[index - 1] == "-m":
            stem = folder.joinpath(*word.split("."))
            candidates += [stem.with_suffix(".py"), stem / "__main__.py"]
        yield from (each for each in candidates if each.is_file())


def _names_it(path: Path) -> bool:
    return _WORD.search(path.read_bytes()) is not None
