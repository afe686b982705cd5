"""The console: what a person sees on a terminal, and plain text in a file or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from pipeline.processes.streams import plain

_IN_A_PIPE = 200
"""Columns where there is no terminal: nothing is cut or folded."""
_FROM_THE_ENVIRONMENT = ("TERM", "COLORTERM", "NO_COLOR")
_SIZE = {"COLUMNS": 20, "LINES": 5}
"""Variables that override the terminal's size, with the smallest number that makes sense."""


class PlainConsole(Console):
    """A console that is a terminal only where standard output is one, whatever the environment says of colours.

    The text that it shows comes from elsewhere too, such as a trainer's log or another program's run. No control
    character in it reaches the terminal.

    Args:
        columns: of a file or a pipe.
        aside: it writes to standard error, and the same is said of that.
    """

    def __init__(self, columns: int = _IN_A_PIPE, *, aside: bool = False) -> None:
        given = {name: value for name in _FROM_THE_ENVIRONMENT if (value := os.environ.get(name))}
        for name, least in _SIZE.items():
            if (value := os.environ.get(name, "")).isdecimal() and int(value) >= least:
                given[name] = value
        terminal = (sys.stderr if aside else sys.stdout).isatty()
        super().__init__(
            stderr=aside,
            highlight=False,
            force_terminal=terminal,
            force_jupyter=False,
            force_interactive=None if terminal else False,
            color_system="auto" if terminal else None,
            width=None if terminal else columns,
            _environ=given,
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))

    def on_broken_pipe(self) -> None:
        """The reader is gone: the caller decides what follows, where Rich would end the program."""
        raise
