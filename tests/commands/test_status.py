"""`ladder status` fits on a terminal, and the short ids that it prints there are taken."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.commands.status import status
from pipeline.experiment.recovery import _choose
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking import tags
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store
from tests.conftest import small_config


def test_narrow_terminal_has_short_ids(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    config = small_config()
    parent = store.start_parent(config)
    attempt = store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")

    def said(width: int) -> str:
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        status(store, console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert parent in said(200) and attempt in said(200)
    narrow = said(80)
    assert parent[:8] in narrow and attempt[:8] in narrow and parent not in narrow
    assert _choose(store, parent[:8]).run_id == parent


def test_a_terminal_shows_the_newest_and_a_pipe_all(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.commands.status._SHOWN_ONCE", 2)
    ids = [empty_store.start_parent(small_config(experiment__name=f"e{number}")) for number in range(3)]
    empty_store.client.delete_run(empty_store.start_parent(small_config()))

    def said(*, terminal: bool, everything: bool = False) -> str:
        console = Console(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
        status(empty_store, console, everything=everything)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert said(terminal=False).count("seed") == said(terminal=True, everything=True).count("seed") == 3
    newest = said(terminal=True)
    assert (
        ids[0] not in newest and ids[2] in newest and newest.rstrip().endswith("… and older ones: ladder status --all")
    )


def test_a_running_attempt_shows_its_warnings(empty_store: Store) -> None:
    config = small_config()
    parent = empty_store.start_parent(config)
    attempt = empty_store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")

    def said() -> str:
        console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
        status(empty_store, console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "warning" not in said()
    for count, words in ((1, "1 warning "), (2, "2 warnings ")):
        warned = [Evidence(rule=f"rule{number}") for number in range(count)]
        empty_store.set_tags(attempt, {tags.WARNINGS: warnings_tag(warned)})
        assert words in said()
    empty_store.end_attempt(attempt, Verdict(name="healthy"))
    assert "warning" not in said() and "healthy" in said()
