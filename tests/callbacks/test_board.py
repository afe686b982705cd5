"""One display of several experiments: each line has its name, and each panel stands there as long as it is open."""

from __future__ import annotations

import io
import threading

from rich.console import Console
from rich.text import Text

from pipeline.callbacks.board import Board


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def said(board: Board) -> str:
    assert isinstance(board.console.file, io.StringIO)
    return board.console.file.getvalue()


def test_lines_and_tables_have_the_name_of_their_experiment() -> None:
    board = Board(console(terminal=False))
    for seed in (1, 2):
        board.terminal(f"seed {seed}").say("begins")
    board.terminal("seed 2").print(Text("a table"))
    lines = said(board).splitlines()
    assert lines[0].endswith("seed 1 begins") and lines[1].endswith("seed 2 begins")
    assert lines[2:] == ["seed 2", "a table"]


def test_in_a_pipe_there_are_no_panels() -> None:
    board = Board(console(terminal=False))
    terminal = board.terminal("seed 1")
    terminal.open_panel(Text("a panel"))
    terminal.update_panel(Text("a panel"))
    assert not terminal.is_live and not said(board)
    terminal.close_panel()


def test_panels_stand_side_by_side_until_each_is_closed() -> None:
    board = Board(console(terminal=True))
    first, second = board.terminal("seed 1"), board.terminal("seed 2")
    first.open_panel(Text("one"))
    second.open_panel(Text("two"))
    assert first.is_live and second.is_live
    before = len(said(board))
    second.update_panel(Text("two again"))
    assert "one" in said(board)[before:] and "two again" in said(board)[before:]
    first.close_panel()
    first.close_panel()
    before = len(said(board))
    second.update_panel(Text("alone"))
    assert not first.is_live and "one" not in said(board)[before:].replace("alone", "")
    second.close_panel()
    assert not second.is_live
    first.open_panel(Text("anew"))
    assert first.is_live and "anew" in said(board)
    first.close_panel()


def test_experiments_in_threads_do_not_disturb_one_another() -> None:
    board = Board(console(terminal=True))

    def experiment(name: str) -> None:
        terminal = board.terminal(name)
        for number in range(30):
            terminal.open_panel(Text(f"panel of {name}"))
            terminal.update_panel(Text(f"{name} {number}"))
            terminal.say(f"line {number}.")
            terminal.close_panel()

    threads = [threading.Thread(target=experiment, args=(f"seed {seed}",)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert said(board).count(f"seed {seed} line") == 30
    assert board._live is None
