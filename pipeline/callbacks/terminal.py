"""A terminal, or a file or pipe in its place, with a log file beside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from pipeline.processes.console import PlainConsole
from pipeline.processes.streams import plain, written
from pipeline.secrets import without_passwords

LINE_EVERY_SECONDS = 20.0
"""Between two lines of progress in a file or a pipe."""


_LOG_BYTES = 32 * 2**20
"""Largest size of a log file; what is older is in a second file beside it, whose name ends in `.1`."""


class _LogFile(RotatingFileHandler):
    """A log that ends no experiment, and fills no terminal, when the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:
        del record


class Terminal:
    """Lines for a person, each in the log file too. On a terminal a live panel can stand below them."""

    def __init__(self, console: Console | None = None, name: str = "") -> None:
        """`name`: stands before each line on the console, where several experiments share it."""
        self.console, self._name = console or PlainConsole(), name
        self._live: Live | None = None
        self._file = logging.Logger("ladder")
        self._last_line = 0.0

    @property
    def is_live(self) -> bool:
        """Whether a panel is shown."""
        return self._live is not None

    def log_to(self, path: Path) -> None:
        """Adds everything that is said from now on to this file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8", maxBytes=_LOG_BYTES, backupCount=1)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._file.addHandler(handler)

    def say(self, text: str, *, only_plain: bool = False, markup: bool = True) -> None:
        """A line in the log file, and on the console (`only_plain`: not on a terminal, where the panel shows it)."""
        text = plain(without_passwords(text))
        rendered = Text.from_markup(text) if markup else Text(text)
        self._file.info(rendered.plain)
        if not (only_plain and self.console.is_terminal):
            stamp = time.strftime("%H:%M:%S" if self.console.is_terminal else "%Y-%m-%d %H:%M:%S")
            begin = Text(f"{stamp} ", style="dim") + Text(f"{self._name} " if self._name else "", style="cyan")
            self._show(partial(self.console.print, begin + rendered, soft_wrap=True))

    def complain(self, what: str) -> None:
        """A warning: something went wrong beside the work."""
        self.say(f"[yellow]warning[/] {escape(what)}")

    def log(self, text: str) -> None:
        """A line in the log file alone."""
        self._file.info("  %s", plain(without_passwords(text)))

    def print(self, what: RenderableType) -> None:
        """Something on the console alone, such as a table."""
        named = Group(Text(self._name, style="cyan"), what) if self._name else what
        self._show(partial(self.console.print, named))

    def line_is_due(self, factor: float = 1.0) -> bool:
        """Whether the last line of progress is long enough ago; if so, the next is due after this one."""
        if time.monotonic() - self._last_line < factor * LINE_EVERY_SECONDS:
            return False
        self._last_line = time.monotonic()
        return True

    def open_panel(self, content: RenderableType) -> None:
        """A panel below the lines, where the console is a terminal."""
        if self.console.is_terminal:
            self._live = Live(content, console=self.console, auto_refresh=False, transient=True)
            self._show(self._live.start)

    def update_panel(self, content: RenderableType) -> None:
        if self._live is not None:
            self._show(partial(self._live.update, content, refresh=True))

    def close_panel(self) -> None:
        if self._live is not None:
            self._show(self._live.stop)
            self._live = None

    def close(self) -> None:
        """Closes the log file; nothing more is to be said."""
        for handler in list(self._file.handlers):
            handler.close()
            self._file.removeHandler(handler)

    def _show(self, write: Callable[[], None]) -> None:
        """Writes to the console. One that is gone (a closed terminal or pipe) ends no experiment: the log goes on."""
        if not written(write, self.console.file):
            self._file.info("the terminal is gone; this log goes on")
