"""What a settled policy does in its best episode: pictures that its trainer has left in the store."""

from __future__ import annotations

import base64
from typing import NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

from pipeline.tracking.artifacts import ATTENTION, BEST_EPISODE
from pipeline.tracking.store import Store

_LARGEST_FILM = 2_000_000  # bytes; a larger one is left out of the page
_SVG = "{http://www.w3.org/2000/svg}"
_SHAPES = {f"{_SVG}{name}" for name in ("svg", "g", "title", "text", "line", "rect", "circle", "path", "polyline")}


class Moment(NamedTuple):
    """A settled policy at play; None: its trainer has left no such picture."""

    attention: Markup | None
    """What it attends to, as SVG; its shapes have titles."""
    film: str | None
    """Its best episode, as an address that holds all of it."""


def moment(store: Store, run: str) -> Moment | None:
    """The pictures of an attempt; None: its trainer has left none that can be shown."""
    drawing, film = store.artifact(run, ATTENTION), store.artifact(run, BEST_EPISODE)
    found = Moment(
        None if drawing is None else plain_drawing(drawing),
        None
        if film is None or len(film) > _LARGEST_FILM
        else f"data:image/gif;base64,{base64.b64encode(film).decode()}",
    )
    return found if any(found) else None


def plain_drawing(data: bytes) -> Markup | None:
    """An SVG file as an element of the page; None where it is none, or is more than shapes and words.

    Whoever may write to the store could have it run a script, or load something, in the reader's browser.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return None
    for element in root.iter():
        if element.tag not in _SHAPES:
            return None
        if any(name.startswith(("on", "{", "href", "style")) or "url(" in value for name, value in element.items()):
            return None
        element.tag = element.tag.removeprefix(_SVG)  # a page of HTML knows an SVG by its name
    return Markup(ElementTree.tostring(root, encoding="unicode"))
