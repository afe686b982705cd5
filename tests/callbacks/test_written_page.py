"""When an experiment gets its page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fallbacks.ladder import BUILT_IN, Plan
from pipeline.attempt.record import AttemptSummary
from pipeline.callbacks import page, rewriting
from pipeline.callbacks.callback import ExperimentEnded, ExperimentStarted
from pipeline.compare.command import PAGE
from pipeline.compare.live import RELOADS
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence
from pipeline.tracking import tags
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store
from tests.conftest import small_config

ATTEMPT = AttemptSummary(0, "v3", "crash", "exit code 1", "scratch", 0, 0, 0.0, None, None, "unknown", "run")


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"outcome": "healthy"}, True),
        ({"outcome": "exhausted"}, True),
        ({"outcome": "error", "resume": "ladder resume 1"}, True),  # the trainer cannot start
        ({"outcome": "error"}, False),  # the store or the disk may be what fails
        ({"outcome": "interrupted", "stopped": True, "resume": "ladder resume 1"}, False),
        ({"outcome": "interrupted", "resume": "ladder resume 1"}, True),
        ({"outcome": "error", "resume": "ladder resume 1", "attempts": ()}, False),
    ],
)
def test_every_end_but_an_error_of_this_program_has_a_page(
    changes: dict[str, Any], written: bool, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    monkeypatch.setattr(page, "log_page", lambda store, parent, complain: pages.append(parent))
    writer = page.PageWriter(empty_store, lambda _: None)
    writer.experiment_started(ExperimentStarted(ExperimentConfig(), "p", "", Path(), False, lambda _: None))
    of = {"reason": "", "settled_rung": None, "attempts": (ATTEMPT,), "metrics": {}, "random_score": None}
    writer.experiment_ended(ExperimentEnded(**({"stopped": False, "resume": None} | of | changes)))
    assert pages == ["p"] * written


PLAN = Plan(BUILT_IN["v3"], ExperimentConfig(), "", None)


def of(outcome: str, **changes: Any) -> ExperimentEnded:
    said = {"reason": "", "settled_rung": None, "attempts": (ATTEMPT,), "metrics": {}, "random_score": None}
    return ExperimentEnded(**(said | {"outcome": outcome, "stopped": False, "resume": None} | changes))


def until(path: Path, words: str) -> str:
    """The file's content, once it has these words."""
    for _ in range(200):
        if path.exists() and words in (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{words} is not in {path.read_text() if path.exists() else path}")


@pytest.fixture
def begun(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[page.PageWriter, str, str]:
    """A writer that has begun, an experiment, and its attempt that runs; the page is due at once."""
    monkeypatch.setattr(rewriting, "_FIRST_SECONDS", 0.0)
    config = small_config(experiment__name="mine")
    parent = empty_store.start_parent(config)
    run = empty_store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    empty_store.log_metrics(run, {"score_window": 1.5, "entropy": 2.0}, step=64)
    empty_store.set_tags(run, {tags.WARNINGS: warnings_tag([Evidence(rule="late", metric="entropy")])})
    writer = page.PageWriter(empty_store, lambda line: pytest.fail(line))
    writer.experiment_started(ExperimentStarted(config, parent, "", empty_store.root, False, lambda _: None))
    writer.attempt_started(PLAN, 0, run)
    return writer, parent, run


def test_the_page_runs_with_the_experiment_and_ends_with_it(
    begun: tuple[page.PageWriter, str, str], empty_store: Store
) -> None:
    writer, parent, _ = begun
    text = until(empty_store.root / PAGE, "Running.")
    assert RELOADS in text and "reloads itself" in text and parent in text
    assert "Warning" in text and "<code>late</code>" in text  # of the attempt that runs
    writer.experiment_ended(of("healthy"))
    text = (empty_store.root / PAGE).read_text()
    assert RELOADS not in text and 'class="live"' not in text and parent in text
    assert empty_store.artifact(parent, PAGE) == text.encode()
    assert [each.name for each in empty_store.root.glob(f".{PAGE}*")] == []


@pytest.mark.parametrize("how", [{"outcome": "interrupted", "stopped": True}, {"outcome": "error"}], ids=str)
def test_a_page_that_is_not_made_at_the_end_reloads_no_more(
    how: dict[str, Any], begun: tuple[page.PageWriter, str, str], empty_store: Store
) -> None:
    writer, parent, run = begun
    until(empty_store.root / PAGE, "Running.")
    began = time.monotonic()
    writer.experiment_ended(of(**how))
    writer.close()
    assert time.monotonic() - began < 1
    text = (empty_store.root / PAGE).read_text()
    assert RELOADS not in text and f"Not running any more: {how['outcome']}." in text and "Running." not in text
    assert empty_store.artifact(parent, PAGE) is None
    # It goes on where the experiment is resumed.
    writer = page.PageWriter(empty_store, lambda line: pytest.fail(line))
    writer.experiment_started(
        ExperimentStarted(ExperimentConfig(), parent, "", empty_store.root, False, lambda _: None)
    )
    writer.attempt_started(PLAN, 0, run)
    assert RELOADS in until(empty_store.root / PAGE, "Running.")
    writer.close()


def test_the_page_of_another_experiment_is_left_alone(empty_store: Store) -> None:
    there = empty_store.root / PAGE
    there.write_text(f'{RELOADS}<p class="live" id="live-other"><b>Running.</b> Written at now, and</p>')
    before = there.read_text()
    writer = page.PageWriter(empty_store, lambda line: pytest.fail(line))
    writer.experiment_started(ExperimentStarted(ExperimentConfig(), "p", "", empty_store.root, False, lambda _: None))
    writer.experiment_ended(of("interrupted", stopped=True))
    assert there.read_text() == before
    there.unlink()
    writer.experiment_ended(of("interrupted", stopped=True))
    assert not there.exists()


def test_under_another_programs_run_there_is_no_page(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "_FIRST_SECONDS", 0.0)
    writer = page.PageWriter(empty_store, lambda line: pytest.fail(line))
    writer.experiment_started(ExperimentStarted(ExperimentConfig(), "p", "", empty_store.root, True, lambda _: None))
    writer.attempt_started(PLAN, 0, "run")
    writer.experiment_ended(of("healthy"))
    assert not (empty_store.root / PAGE).exists() and writer._rewriting is None
