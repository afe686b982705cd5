"""What a person reads while an experiment runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fallbacks.ladder import Ladder
from pipeline.callbacks import terminal
from pipeline.callbacks.display import Display
from pipeline.config import ExperimentConfig


def lines_of(display: Display, *news: dict[str, float]) -> list[str]:
    """The lines that are said of news that come one after another."""
    file = display.terminal.console.file
    assert isinstance(file, io.StringIO)
    before = len(file.getvalue())
    for latest in news:
        display.progress(latest)
    return file.getvalue()[before:].splitlines()


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Display:
    monkeypatch.setattr(terminal, "LINE_EVERY_SECONDS", 0.0)
    config = ExperimentConfig().with_values({"training.episodes": 20})
    display = Display(terminal.Terminal(Console(file=io.StringIO(), width=300)))
    display._config = config
    display.attempt_started(Ladder(config).first(), 0, "run")
    return display


def test_a_training_that_is_done_is_told_once_with_what_it_awaits(display: Display) -> None:
    done = {"episodes": 21.0, "progress": 1.0, "score_window": 5.0}
    whole = done | {"random/score": 4.0}
    under_way, awaiting, ended = lines_of(display, {"episodes": 9.0, "progress": 0.45}, done, done, whole, whole)
    assert "episode 9 of 20, ETA" in under_way
    assert "episode 21, trained to the end, awaiting the random baseline," in awaiting and "ETA" not in awaiting
    assert "episode 21, trained to the end," in ended and "awaiting" not in ended


def test_a_retry_may_be_done_at_its_beginning(display: Display) -> None:
    done = {"episodes": 21.0, "progress": 1.0, "random/score": 4.0}
    assert len(lines_of(display, done, done)) == 1
    display.attempt_started(display._plan, 1, "other")
    assert len(lines_of(display, done)) == 1
