"""What the notes on the runs say, in Markdown, and the command that continues an experiment."""

from __future__ import annotations

import shlex
from typing import Any

from pipeline.config import TrackingSection
from pipeline.secrets import without_passwords


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The attempts table of a parent's note."""
    columns = [column for column in rows[0] if column != "run_id"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = ["" if row[column] is None else str(row[column]).replace("|", "/") for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def resume_command(parent: str, tracking: TrackingSection) -> str:
    """The command that continues an experiment, typed in the same folder. It has no password in it."""
    usual = TrackingSection()
    words = [f"tracking.root={tracking.root}"] if tracking.root != usual.root else []
    words += [f"tracking.uri={without_passwords(tracking.uri or '')}"] if tracking.uri != usual.uri else []
    return shlex.join([".venv/bin/ladder", "resume", parent, *words])
