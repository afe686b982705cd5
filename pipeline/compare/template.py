"""The page's HTML: templates in the folder `templates`, and elements of its charts. What is filled in is escaped."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.compare.wording import tone, words


def fill(name: str, **values: object) -> Markup:
    """A template with these values; one that it needs and does not get is an error."""
    return Markup(_environment().get_template(name).render(values))


def source(name: str) -> Markup:
    """A file of the templates' folder as it stands, for a place of the page where nothing is escaped."""
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def element(tag: str, inside: str = "", /, **attributes: object) -> Markup:
    """One element. The attribute `class_` is its class, and `data_x` is `data-x`."""
    named = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    said = Markup().join(Markup(' {}="{}"').format(name, value) for name, value in named)
    form = Markup("<{0}{1}>{2}</{0}>") if inside else Markup("<{0}{1}/>")
    return form.format(tag, said, inside)


def _with_code(text: str) -> Markup:
    """HTML of a sentence in which names stand between backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("pipeline.compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "words": words,
        "with_code": _with_code,
        "tone": tone,
        "upper_first": lambda text: text[:1].upper() + text[1:],
        "thousands": "{:,}".format,
        "minutes": "{:.1f} min".format,
        "percent": "{:.0%}".format,
    }
    return found
