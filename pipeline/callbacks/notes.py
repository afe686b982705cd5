"""What the notes on the runs say, in Markdown, and the command that continues an experiment."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.attempt.record import TO_THE_END
from pipeline.config import TrackingSection
from pipeline.secrets import without_passwords

_MAY_BE_UNKNOWN = ("episodes", "steps", "score", "best score", "quality")


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The attempts table of a parent's note."""
    columns = known_columns(rows, [column for column in rows[0] if column != "run_id"])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = ["" if row[column] is None else str(row[column]).replace("|", "/") for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def known_columns(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[str]:
    """The columns without those that say nothing of any attempt: episodes or steps that are not counted, no score.

    Whether an attempt was trained to its end is said where its verdict does not say it already.
    """
    plain = all((row[TO_THE_END] == "yes") == (row["verdict"] == "healthy") for row in rows)
    return [
        column
        for column in columns
        if not (column == TO_THE_END and plain)
        and (column not in _MAY_BE_UNKNOWN or any(row[column] is not None and row[column] != 0 for row in rows))
    ]


def resume_command(parent: str, tracking: TrackingSection) -> str:
    """The command that continues an experiment, typed in the same folder. It has no password in it."""
    usual = TrackingSection()
    words = [f"tracking.root={tracking.root}"] if tracking.root != usual.root else []
    words += [f"tracking.uri={without_passwords(tracking.uri or '')}"] if tracking.uri != usual.uri else []
    return shlex.join([".venv/bin/ladder", "resume", parent, *words])
