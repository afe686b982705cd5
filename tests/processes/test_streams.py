"""What is shown: no escape sequences in a file, none of somebody else's on a terminal, and no password anywhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from pipeline.callbacks.terminal import Terminal
from pipeline.processes.console import PlainConsole
from pipeline.processes.streams import Discreet, complain, plain

REPOSITORY = Path(__file__).parents[2]
_COLOUR, _LINK = "\x1b[31mred\x1b[0m", "\x1b]8;;http://x\x07link\x1b]8;;\x1b\\"
NASTY = f"{_COLOUR} {_LINK} \x1b]52;c;aGk=\x07 \x9b2J \x07\x08\x1bc \u202eabc\u2066 \x85"
CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]


def test_text_from_elsewhere_is_plain() -> None:
    assert plain(NASTY) == "red link    abc "
    assert plain("α – ✓ [bold] tab\t and\nline") == "α – ✓ [bold] tab\t and\nline"
    assert plain("a\r\nb") == "a\nb"
    assert plain("10%\r50%\r100%\nnext\r") == "100%\nnext"
    assert plain("\udcff") == "\ufffd"
    assert not set(plain("|".join(CONTROLS))) & set(CONTROLS)


def test_one_line_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    complain("bad\n\x1b[2Jthing http://a:pw@h")
    assert capsys.readouterr().err == "ladder: bad thing http://a:***@h\n"


def test_a_stream_shows_no_password() -> None:
    raw = io.BytesIO()
    stream = Discreet(raw, encoding="utf-8")
    assert stream.write("at http://a:secret@h\n") == len("at http://a:secret@h\n")
    stream.flush()
    assert raw.getvalue() == b"at http://a:***@h\n"


SHOW = """
from rich.panel import Panel
from pipeline.callbacks.terminal import Terminal
from pipeline.processes.console import PlainConsole
PlainConsole().print(Panel("[bold]framed[/]"))
terminal = Terminal()
terminal.open_panel(Panel("live"))
terminal.say("[red]said[/] α")
print(PlainConsole().width, PlainConsole().is_terminal)
"""
COLOURS = {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "COLUMNS": "3"}


@pytest.mark.parametrize("more", [{}, {"TERM": "xterm-256color"}, {"TERM": "dumb", "NO_COLOR": "1"}])
def test_a_pipe_has_no_colours_whatever_the_environment_says(more: dict[str, str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **COLOURS, **more}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, timeout=100)
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in said and "live" not in said and "said α" in said and said.endswith("200 False\n")


@pytest.mark.parametrize("columns", ["0", "1", "-5", "many", ""])
def test_an_odd_width_of_a_terminal_counts_for_nothing(columns: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": columns, "LINES": columns}
    code = "from pipeline.processes.console import PlainConsole; PlainConsole().print('a wide line of words')"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=theirs, stdout=theirs)
    os.close(theirs)
    assert process.wait(timeout=100) == 0
    assert "a wide line of words" in os.read(ours, 65536).decode()
    os.close(ours)


def test_nobody_else_writes_to_the_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Tty()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "dumb")  # no styles, so that every escape would be the text's own
    console = PlainConsole()
    table = Table("a")
    table.add_row(escape(NASTY))
    console.print(table, Panel(escape(NASTY)))
    terminal = Terminal(console)
    terminal.log_to(tmp_path / "log")
    terminal.say(f"{escape(NASTY)} http://a:pw@h")
    terminal.log(NASTY)
    terminal.close()
    for text in (screen.getvalue(), (tmp_path / "log").read_text(encoding="utf-8")):
        assert "red link" in text and not set(text) & {*CONTROLS, "\u202e", "\u2066"}, repr(text)
        assert "pw" not in text
