"""What the page of an experiment says while that runs: that it does, when the page was written, and that it reloads."""

from __future__ import annotations

import re
from pathlib import Path

from markupsafe import Markup

from pipeline.attempt.atomic import write_atomically
from pipeline.compare.template import fill

RELOADS = Markup('<meta http-equiv="refresh" content="60">')
"""In the page's head: the browser loads the file again after a minute."""


def note(parent: str, written: str) -> Markup:
    """HTML of the line at the head of the page."""
    return fill("live.html.j2", parent=parent, written=written, ended=None)


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
    ours = re.search(
        rf'<p class="live" id="live-{re.escape(parent)}">.*?Written at <time[^>]*>([^<]*)</time>.*?</p>',
        text,
        re.DOTALL,
    )
    if ours is None:
        return
    ended = fill("live.html.j2", parent=parent, written=ours[1], ended=outcome)
    text = "".join((text[: ours.start()], ended, text[ours.end() :]))
    write_atomically(page, text.replace(RELOADS, "", 1))
