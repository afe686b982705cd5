"""What a person is told to type can be typed."""

from __future__ import annotations

import shlex

from pipeline.callbacks.notes import resume_command
from pipeline.config import TrackingSection


def test_command_to_go_on_says_where() -> None:
    assert resume_command("abc", TrackingSection()) == ".venv/bin/ladder resume abc"
    elsewhere = TrackingSection(root="my runs/[b]", uri="sqlite:////tmp/a b.db")
    words = shlex.split(resume_command("abc", elsewhere))
    assert words[2:] == ["abc", "tracking.root=my runs/[b]", "tracking.uri=sqlite:////tmp/a b.db"]
