"""The page on health says what the rules say."""

from pipeline.health.page import PAGE, render


def test_page_is_made_from_the_rules() -> None:
    assert PAGE.read_text() == render(), "run: python -m pipeline.health.page"
