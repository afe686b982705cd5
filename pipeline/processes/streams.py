"""Standard streams: they may fail (the reader is gone, the disk is full), and what they show comes from elsewhere.

A trainer's log, an error of a server or a run of another program may hold control characters, which a terminal obeys,
and passwords. `plain` removes the former; `pipeline.secrets` hides the latter.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import IO

from pipeline.secrets import without_passwords

_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI, such as a colour
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, such as a title, a link or the clipboard; DCS, SOS, PM, APC
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x90\x98\x9d-\x9f].*?(?:\x07|\x1b\\|\x9c|$)"  # the same as single characters (C1)
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, C1
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"  # separators of lines, and what turns the direction of a text
)
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def plain(text: str) -> str:
    """The text without escape sequences and control characters, so that no terminal does what it says.

    Newlines and tabs stay. Of a line that was written over (a progress bar), the last state stays.
    """
    text = _SEQUENCES.sub("", text)
    if "\r" in text:
        lines = text.replace("\r\n", "\n").split("\n")
        text = "\n".join(next((each for each in reversed(line.split("\r")) if each), "") for line in lines)
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


class Discreet(io.TextIOWrapper):
    """A standard stream that shows no password, whoever writes to it: this program, a library, a traceback."""

    def write(self, text: str, /) -> int:
        super().write(without_passwords(text))
        return len(text)


def make_discreet() -> None:
    """Has standard output and error show no password, and show `?` for what their encoding does not have.

    A terminal that cannot show α must not end a night's run.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
            continue
        if isinstance(stream, Discreet):
            continue
        encoding, lines, through = stream.encoding, stream.line_buffering, stream.write_through
        stream.flush()
        discreet = Discreet(stream.detach(), encoding, errors="replace", line_buffering=lines, write_through=through)
        setattr(sys, name, discreet)
        setattr(sys, f"__{name}__", discreet)


def written(write: Callable[[], None], stream: IO[str]) -> bool:
    """Returns whether the write succeeded. If it failed (closed, disk full), redirects the stream to /dev/null.

    So the stream does not fail again, nor when Python flushes it at its end, which would change the exit code.
    """
    try:
        write()
        stream.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        return False
    return True


def open_standard_streams() -> None:
    """Redirects each of standard input, output and error that is closed to /dev/null.

    Otherwise Python has no such stream, and the next file that is opened, such as a database, becomes the standard
    output of every process that is started.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 (for as long as the process lives)


def complain(text: str) -> None:
    """Writes one line to standard error."""
    line = without_passwords(" ".join(plain(text).splitlines()))
    written(lambda: print(f"ladder: {line}", file=sys.stderr), sys.stderr)
