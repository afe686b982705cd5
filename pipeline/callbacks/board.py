"""One display of experiments that run at a time: their lines with their names, and their panels side by side."""

from __future__ import annotations

import threading

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.live import Live

from pipeline.callbacks.terminal import Terminal
from pipeline.processes.console import PlainConsole


class Board:
    """The console that they share. Its panels stand below the lines as long as any experiment has one."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or PlainConsole()
        self._lock = threading.RLock()
        self._panels: dict[str, RenderableType] = {}
        self._live: Live | None = None

    def terminal(self, name: str) -> Terminal:
        """The terminal of one experiment."""
        return _BoardTerminal(self, name)

    def show(self, name: str, panel: RenderableType) -> None:
        """Shows an experiment's panel in place of the one before."""
        with self._lock:
            self._panels[name] = panel
            if self._live is None:
                self._live = Live(self._content(), console=self.console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._content(), refresh=True)

    def remove(self, name: str) -> None:
        """Removes an experiment's panel."""
        with self._lock:
            if self._panels.pop(name, None) is None or self._live is None:
                return
            if self._panels:
                self._live.update(self._content(), refresh=True)
            else:
                self._live.stop()
                self._live = None

    def has(self, name: str) -> bool:
        """Whether an experiment has a panel."""
        return name in self._panels

    def _content(self) -> RenderableType:
        return Columns([self._panels[name] for name in sorted(self._panels)])


class _BoardTerminal(Terminal):
    """A terminal whose panel is one of several."""

    def __init__(self, board: Board, name: str) -> None:
        super().__init__(board.console, name)
        self._board = board

    @property
    def is_live(self) -> bool:
        return self._board.has(self._name)

    def open_panel(self, content: RenderableType) -> None:
        if self.console.is_terminal:
            self._show(lambda: self._board.show(self._name, content))

    def update_panel(self, content: RenderableType) -> None:
        if self.is_live:
            self._show(lambda: self._board.show(self._name, content))

    def close_panel(self) -> None:
        self._show(lambda: self._board.remove(self._name))
