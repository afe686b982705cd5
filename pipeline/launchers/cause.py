"""Why a trainer cannot start, in words: from its command before it is launched, or from its last words afterwards."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_FIRST_LINE = 512
"""Bytes of a script in which its interpreter is named."""
_CRLF = "the script has Windows line ends (CRLF)"


class Cause(NamedTuple):
    """Why a trainer has ended before it has logged anything."""

    words: str
    certain: bool
    """Whether another try fails too, until a person has mended something."""


SILENT = Cause(
    "it ended with exit code 0, and not a single metric was logged to the run that MLFLOW_RUN_ID names; its metrics "
    "may have gone to TensorBoard, to another MLflow run or store, or only to its output",
    certain=True,
)
_SET_EXPERIMENT = Cause(
    "the script calls mlflow.set_experiment(), and MLflow then refuses the run of the attempt, which belongs to the "
    "ladder's experiment; leave the call out where MLFLOW_RUN_ID is set: "
    "`if 'MLFLOW_RUN_ID' not in os.environ: mlflow.set_experiment(…)`",
    certain=True,
)
_NO_PROGRAM = "{0} is no program of this machine, and has no first line that names an interpreter, such as #!/bin/bash"
_SAID: tuple[tuple[re.Pattern[str], str, bool], ...] = (
    (re.compile(r"\\r'?[:,]? .*(No such file|command not found|not found)|\$'\\r'|\r: "), _CRLF, True),
    (re.compile(r"can't open file '(.+)': \[Errno 2\]"), "there is no file {0}", True),
    (re.compile(r"can't open file '(.+)': \[Errno \d+\] (.+)"), "{0} cannot be read: {1}", True),
    (re.compile(r"can't find '__main__' module in '(.+)'"), "{0} is a folder without a __main__.py", True),
    (re.compile(r"^\S*: No module named ([^'\s]+)$"), "its python has no module {0}", True),
    (re.compile(r"(?:^|\()ModuleNotFoundError: No module named '([^']+)'"), "its python has no module {0}", True),
    (re.compile(r"^((?:Syntax|Indentation|Tab)Error: .+)"), "the script cannot be compiled: {0}", True),
    (re.compile(r"(\S+): (?:cannot execute.*: )?Exec format error"), _NO_PROGRAM, True),
    (re.compile(r"error: (unrecognized arguments: .+)"), "it does not know its arguments: {0}", False),
)  # fmt: skip
_ANOTHER_EXPERIMENT = "experiment ID does not match environment run ID"
_MAY_PASS = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|API request to|OperationalError"
    r"|database is locked|Connection (refused|reset|aborted)|timed out|[Nn]ame resolution|Name or service not known"
    r"|[Tt]emporarily unavailable|Service Unavailable|Bad Gateway|Gateway Time-?out|Too Many Requests",
)
_COMMAND_NOT_FOUND, _COMMAND_NOT_EXECUTABLE = 127, 126
"""Exit codes of shells, and of the leash that starts a trainer."""


def cause_of(code: int, tail: Sequence[str]) -> Cause | None:
    """Why a process with this exit code and these last lines has ended; None where nothing is known."""
    last = [line.strip() for line in tail if line.strip()][-3:]
    if any(_ANOTHER_EXPERIMENT in line for line in last):
        return _SET_EXPERIMENT
    for line in reversed(last):
        for pattern, words, certain in _SAID:
            if found := pattern.search(line):
                return Cause(words.format(*found.groups()), certain)
    if code in (_COMMAND_NOT_FOUND, _COMMAND_NOT_EXECUTABLE):
        what = "was not found" if code == _COMMAND_NOT_FOUND else "cannot be executed"
        return Cause(f"a command {what}" + (f": {last[-1]}" if last else ""), certain=True)
    return None


def may_pass(tail: Sequence[str]) -> bool:
    """Whether the last words tell of something that may pass by itself: a server or a network that is away."""
    return any(_MAY_PASS.search(line) for line in tail[-5:])


def refusal(command: str, path: str) -> str | None:
    """Why this command cannot be executed at all; None if it can, as far as can be seen.

    Args:
        command: the first word of a command line.
        path: folders in which it is looked for, as in `PATH`.
    """
    found = shutil.which(command, path=path)
    if found is None:
        if os.sep not in command:
            return "there is no such command on the PATH"
        file = Path(command)
        if not file.exists():
            return "there is no such file"
        return "it is a folder" if file.is_dir() else f"it is not executable (chmod +x {command})"
    try:
        with Path(found).open("rb") as script:
            first, _, _ = script.read(_FIRST_LINE).partition(b"\n")
    except OSError:  # executable, but not readable
        return None
    return _shebang(first.decode(errors="replace"), path) if first.startswith(b"#!") else None


def _shebang(line: str, path: str) -> str | None:
    """Why no interpreter is found for a script whose first line is this one."""
    words = line.removeprefix("#!").split()
    if line.endswith("\r"):
        interpreter = words[-1] if words else ""
        return f"{_CRLF}: its first line asks for {interpreter + chr(13)!r}"
    if not words:
        return "its first line (#!) names no interpreter"
    if not Path(words[0]).exists():
        return f"its first line asks for {words[0]}, and there is no such file"
    if not os.access(words[0], os.X_OK) or Path(words[0]).is_dir():
        return f"its first line asks for {words[0]}, which cannot be executed"
    if Path(words[0]).name == "env":
        wanted = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
        if wanted is not None and shutil.which(wanted, path=path) is None:
            return f"its first line asks for {wanted}, and there is no such command on the PATH"
    return None
