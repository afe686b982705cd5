"""What the page of an experiment says while that runs: that it does, when the page was written, and that it reloads."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from pipeline.attempt.atomic import write_atomically

RELOADS = '<meta http-equiv="refresh" content="60">'
"""In the page's head: the browser loads the file again after a minute."""


def note(parent: str, written: str) -> str:
    """HTML of the line at the head of the page."""
    return (
        f'<p class="live" id="live-{escape(parent)}"><b class="wait">Running.</b> Written at {escape(written)}, '
        "and anew about every minute; this page reloads itself.</p>"
    )


def end_reloading(page: Path, parent: str, outcome: str) -> None:
    """Says in the file that the experiment does not run any more, if it is the page of that experiment, running.

    It asks no store, so it takes no time: the page shows the experiment as it stood when it was last written.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    ours = re.compile(rf'(<p class="live" id="live-{re.escape(parent)}">).*?Written at ([^,<]*),.*?</p>')
    if ours.search(text) is None:
        return
    ended = f'<b class="wait">Not running any more: {escape(outcome)}.</b>'
    text = ours.sub(rf"\g<1>{ended} This is how it stood at \g<2>.</p>", text, count=1)
    write_atomically(page, text.replace(RELOADS, "", 1))
