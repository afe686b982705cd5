"""When an experiment gets its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.attempt.record import AttemptSummary
from pipeline.callbacks import page
from pipeline.callbacks.callback import ExperimentEnded, ExperimentStarted
from pipeline.config import ExperimentConfig

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
    changes: dict[str, Any], written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    monkeypatch.setattr(page, "log_page", lambda store, parent, complain: pages.append(parent))
    writer = page.PageWriter(cast(Any, None), lambda _: None)
    writer.experiment_started(ExperimentStarted(ExperimentConfig(), "p", "", Path(), False, lambda _: None))
    of = {"reason": "", "settled_rung": None, "attempts": (ATTEMPT,), "metrics": {}, "random_score": None}
    writer.experiment_ended(ExperimentEnded(**({"stopped": False, "resume": None} | of | changes)))
    assert pages == ["p"] * written
