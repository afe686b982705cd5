"""The pages that are made from results say what the results say."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from benchmarks import learning, learning_page, survival, throughput, watchdog_page
from benchmarks.report import RESULTS

PAGES: dict[str, tuple[Callable[[], str], str]] = {
    "watchdog": (watchdog_page.render, "python -m benchmarks.watchdog_page"),
    **{
        page.name: (
            lambda page=page: learning_page.render(page, learning.results(page)),
            "python -m benchmarks.learning --report",
        )
        for page in (learning_page.NOW, learning_page.WITHOUT_PATHS)
    },
    "speed": (
        lambda: throughput.render(json.loads((RESULTS / "throughput.json").read_text())),
        "python -m benchmarks.throughput --report",
    ),
    "survival": (survival.render, "python -m benchmarks.survival --report"),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_made_from_the_results(name: str) -> None:
    render, command = PAGES[name]
    page = RESULTS.parent.parent / "docs" / f"{name}.md"
    assert page.read_text() == render(), f"run: {command}"
