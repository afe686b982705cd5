"""What comes from elsewhere stands on the page as words, never as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

import pipeline.compare
from pipeline.compare.from_store import read
from pipeline.compare.moments import plain_drawing
from pipeline.compare.page import render
from pipeline.compare.svg import Chart
from pipeline.compare.template import element, fill, source
from pipeline.health.verdict import Evidence
from pipeline.tracking import tags
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store
from tests.compare.test_pages_of_scripts import HEALTHY, script

HOSTILE = "</script><img src=x onerror=alert(1)> \"'><!-- ]]> {{ 1234 * 1234 }} {% x %} `a<b>`\n&amp; ünï"


class Elements(HTMLParser):
    """The names and attributes of a page's elements, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(" ".join([tag, *(name for name, _ in attrs)]))

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(store: Store, words: str) -> str:
    """The page of a script that says these words wherever a script, its user or its launcher can say any."""
    found = Evidence(
        rule=words, metric="loss", values=(1.0,), threshold=words, onset_step=10, detection_step=20,
        detail={"why": words, words: 1.0},
    )  # fmt: skip
    cause = Evidence(rule="exit", detail={"cause": words, "log_tail": [words, words]})
    failed = ("runaway", (found, cause))
    parent = script(store, ({"loss": [1.0, 2.0]}, failed), ({"loss": [1.0, 0.5]}, HEALTHY), parameters={"a": words})
    night = read(store, [parent])
    for run in night.attempts.run_id:
        warned = warnings_tag([Evidence(rule=words, metric="loss", threshold=words, detail={"reason": words})])
        store.set_tags(run, {tags.WARNINGS: warned, tags.NOT_STORED: words, tags.COMMAND: words})
    night = read(store, [parent])
    night.experiments[["experiment", "reason", "outcome", "model", "settled_rung"]] = words
    night.attempts["checkpoint"], night.attempts["evidence"] = words, words
    night.attempts["rung"] = [words, f"{words}2"]
    return render(night, running=parent)


def test_whatever_is_said_makes_no_element(empty_store: Store) -> None:
    hostile, plain = (
        Elements(page_of(empty_store, HOSTILE)),
        Elements(page_of(empty_store, "plain `words`\nof two lines")),
    )
    same = [
        [each for each in page.found if each != "b style"] for page in (hostile, plain)
    ]  # the marks of the time axis
    assert same[0] == same[1]
    assert hostile.words.count("{{ 1234 * 1234 }}") > 10


def test_an_element_escapes_values_and_words() -> None:
    said = element("text", "a<b", class_='x"', data_x=1.5, text_anchor="end")
    assert said == '<text class="x&#34;" data-x="1.5" text-anchor="end">a&lt;b</text>'
    assert (
        element("g", element("title", "&")) == "<g><title>&amp;</title></g>"
        and element("line", x1=0) == '<line x1="0"/>'
    )
    chart = Chart("</title>", (0, 1), (0, 1), x_label="<s>")
    chart.dot(0.5, 0.5, "c0", "<b>")
    assert "<b>" not in chart.render() and "</title><" not in chart.render().replace("&lt;b&gt;</title><", "")


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="legend"):
        fill("score.html.j2", ends="", charts=[])


def test_the_script_cannot_end_its_own_element() -> None:
    assert not re.search(r"</|<!--|\{[{%#]", source("page.js"))


def test_a_drawing_of_shapes_is_shown_with_its_titles() -> None:
    drawing = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g><text x="1">a &lt; b</text><line x1="0">'
    shown = plain_drawing(f"<?xml version='1.0'?>{drawing}<title>30 %</title></line></g></svg>".encode())
    assert shown == (
        '<svg viewBox="0 0 9 9"><g><text x="1">a &lt; b</text><line x1="0"><title>30 %</title></line></g></svg>'
    )


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        "<rect onload='alert(1)'/>",
        "<a href='javascript:alert(1)'><text>x</text></a>",
        "<rect fill='url(http://elsewhere/x)'/>",
        "<text style='background:red'>x</text>",
        "<foreignObject/>",
        "<image href='http://elsewhere/x.png'/>",
        "<rect xmlns:xlink='http://www.w3.org/1999/xlink' xlink:href='x'/>",
        "<b xmlns='http://www.w3.org/1999/xhtml'>x</b>",
        "<unclosed>",
    ],
)
def test_a_drawing_that_is_more_is_left_out(inside: str) -> None:
    assert plain_drawing(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'.encode()) is None
    assert plain_drawing(b"\xff\xfe no drawing") is None


def test_html_is_in_the_templates() -> None:
    for path in Path(pipeline.compare.__file__).parent.glob("*.py"):
        assert not re.search(
            r"""f["'](?:[^"'{]*)</?(?:div|p|b|td|tr|table|section|svg|span)\\b""", path.read_text(encoding="utf-8")
        ), path
