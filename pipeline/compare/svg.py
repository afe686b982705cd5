"""Small charts as inline SVG, without a library, legible in light and dark mode and in print.

Lines carry their values (`data-x`, `data-y`), which `templates/page.js` shows on hovering. With the ends of the axes
(`data-span`) it zooms in: what is drawn lies in an inner `svg`, and the marks of the axes in `g.ticks`.

Colours are CSS variables (`--ink`, `--c0` …) of the page that holds the chart; `templates/style.css.j2` defines them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from markupsafe import Markup

from pipeline.compare.template import element

FONT = 12
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 26.0, 26.0
_MOST_POINTS = 400
"""Number of points to which a line is thinned: more cannot be seen, and would make the page large."""
_LETTER = 8.6
"""Mean width of a letter of the title, in pixels, where it is largest."""
_MOST_POWERS = 8
"""Powers of ten that a logarithmic axis names."""
_DIGIT = 8.4
"""Mean width of a letter at the axes, in pixels, where they are largest."""
_MOST_DIGITS = 8
_SHOWN = 1000
"""Values that differ by this part of an axis have different digits."""
_NEAREST_MARKS = 4.0
"""Pixels between two marks on the edge, from which on they are one."""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda each: abs(math.log(each / rough)))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, precision: int = 3) -> str:
    """A number in few characters, with so many digits: 12k, 1.2M, 0.05, 7, 1e12, 3e-4."""
    if abs(value) < 1e9:
        for size, letter in ((1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.{precision}g}{letter}"
    digits, e, exponent = f"{value:.{precision}g}".partition("e")
    if not e and 0 < abs(value) < 0.01 and len(digits.lstrip("-")) > len("0.001"):
        digits, e, exponent = f"{value:.{precision - 1}e}".partition("e")
        digits = digits.rstrip("0").rstrip(".")
    return f"{digits}e{int(exponent)}" if e else digits


def numbers(values: Sequence[float]) -> list[str]:
    """Different numbers in few characters, with as many digits as tell them apart."""
    found: list[str] = []
    for precision in range(3, _MOST_DIGITS + 1):
        found = [number(value, precision) for value in values]
        if len({*found}) == len(found):
            break
    return found


def shortened(words: str, width: float) -> str:
    """Words that fit into so many pixels: of a long name the middle is left out, as its end may tell it apart."""
    most = max(8, int(width / _LETTER))
    if len(words) <= most:
        return words
    head = most // 3
    return f"{words[:head]}…{words[len(words) - (most - head - 1) :]}"


class Chart:
    """A plot with two axes, drawn from back to front.

    Args:
        title: shown at the top left.
        x: range of the horizontal axis.
        y: range of the vertical axis; with `log`, both ends are positive.
        size: width and height in pixels.
        x_label: unit, shown at the end of the horizontal axis.
        log: whether the vertical axis is logarithmic.
        linear: with `log`, the size of values up to which the axis is nearly linear, so that it has room for 0 and
            for negative values; 0: it has none.
        rows: whether the vertical axis only counts rows and is not drawn.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        size: tuple[int, int] = (330, 170),
        x_label: str = "",
        log: bool = False,
        linear: float = 0.0,
        rows: bool = False,
    ) -> None:
        self.title, self.size, self.log, self.x_label, self._rows = title, size, log, x_label, rows
        self._linear = linear
        self.x = _range(*x)
        self.y = _range(self._scaled(y[0]), self._scaled(y[1]))
        self._parts: list[Markup] = []

    # Coordinates

    def px(self, value: float) -> float:
        """Horizontal position of a value, in pixels."""
        width = self.size[0] - _LEFT - _RIGHT
        return round(_LEFT + width * (value - self.x[0]) / (self.x[1] - self.x[0]), 2)

    def py(self, value: float) -> float:
        """Vertical position of a value, in pixels; values outside of the axis end just beyond it."""
        height = self.size[1] - _TOP - _BOTTOM
        share = (self._scaled(value) - self.y[0]) / (self.y[1] - self.y[0])
        return round(self.size[1] - _BOTTOM - height * min(1.02, max(-0.02, share)), 2)

    def _scaled(self, value: float) -> float:
        """A value on the scale of the vertical axis."""
        if not self.log:
            return value
        if self._linear:
            return math.copysign(math.log10(1 + abs(value) / self._linear), value)
        return math.log10(max(value, 1e-300))

    # Marks: `kind` is a CSS class, `title` the text that is shown on hovering

    def area(
        self,
        x: Sequence[float],
        low: Sequence[float],
        high: Sequence[float],
        kind: str,
        title: str = "",
        shown: Sequence[float] = (),
    ) -> None:
        """Fills the area between two lines. `shown`: the values that are shown on hovering over the upper one."""
        if len(x):
            there = [f"{self.px(a)},{self.py(b)}" for a, b in zip(x, high, strict=True)]
            back = [f"{self.px(a)},{self.py(b)}" for a, b in zip(x, low, strict=True)]
            values = {"data_x": " ".join(map(_exactly, x)), "data_y": " ".join(f"{each:.3g}" for each in shown)}
            points = " ".join([*there, *reversed(back)])
            self._add("polygon", title, class_=kind, points=points, **(values if len(shown) else {}))

    def line(self, x: np.ndarray, y: np.ndarray, kind: str, title: str = "") -> None:
        """Draws a line through the values, with a gap where one is not finite; a single value is a point."""
        finite = np.isfinite(y)
        ends = np.flatnonzero(np.diff(np.concatenate([[False], finite, [False]]).astype(int)))
        parts = [(int(start), int(end)) for start, end in ends.reshape(-1, 2)]
        for start, end in parts:
            share = -(-_MOST_POINTS * (end - start) // max(1, int(finite.sum())))
            self._unbroken(*_thinned(np.asarray(x)[start:end], np.asarray(y)[start:end], share), kind, title)

    def _unbroken(self, x: np.ndarray, y: np.ndarray, kind: str, title: str) -> None:
        if len(x) == 1:
            self._add("circle", title, class_=f"dot {kind}", cx=self.px(x[0]), cy=self.py(y[0]), r=2)
        else:
            points = " ".join(f"{self.px(a):.1f},{self.py(b):.1f}" for a, b in zip(x, y, strict=True))
            values = {} if self._rows else {"data_x": " ".join(map(_exactly, x)), "data_y": " ".join(self._digits(y))}
            self._add("polyline", title, class_=f"line {kind}", points=points, **values)

    def _digits(self, y: np.ndarray) -> list[str]:
        """Values in as few digits as the axis can show."""
        largest, apart = float(np.abs(y).max()), self.y[1] - self.y[0]
        digits = 4 if self.log or not largest else math.ceil(math.log10(max(1.0, largest / apart * _SHOWN))) + 1
        return [f"{each:.{min(_MOST_DIGITS, max(4, digits))}g}" for each in y]

    def edge(self, x: Sequence[float], at: Literal["top", "bottom"], kind: str, title: str = "") -> None:
        """Marks places of the horizontal axis on an edge of the plot; those that lie together are one mark."""
        places = sorted({self.px(each) for each in x})
        y = _TOP if at == "top" else self.size[1] - _BOTTOM - 6
        while places:
            count = 1
            while count < len(places) and places[count] - places[count - 1] <= _NEAREST_MARKS:
                count += 1
            width = max(4.0, places[count - 1] - places[0])
            box = {"x": round(places[0] - 2, 1), "y": y, "width": round(width, 1), "height": 6}
            self._add("rect", title, class_=kind, **box, rx=1)
            places = places[count:]

    def level(self, y: float, kind: str, title: str = "") -> None:
        """Draws a horizontal line across the plot if it lies within the axis."""
        share = (self._scaled(y) - self.y[0]) / (self.y[1] - self.y[0])
        if 0 <= share <= 1:
            at = self.py(y)
            self._add("line", title, class_=kind, x1=_LEFT, x2=self.size[0] - _RIGHT, y1=at, y2=at)

    def span(self, start: float, end: float, kind: str, title: str = "") -> None:
        """Draws a vertical strip over the whole height."""
        left, right = self.px(max(start, self.x[0])), self.px(min(end, self.x[1]))
        box = {"x": left, "y": _TOP, "width": round(max(2.0, right - left), 1)}
        self._add("rect", title, class_=kind, **box, height=self.size[1] - _TOP - _BOTTOM)

    def dot(self, x: float, y: float, kind: str, title: str = "") -> None:
        """Draws a dot."""
        self._add("circle", title, class_=f"dot {kind}", cx=self.px(x), cy=self.py(y), r=3.5)

    def cross(self, x: float, y: float, title: str = "") -> None:
        """Draws a cross, which marks a failure."""
        a, b = self.px(x), self.py(y)
        self._add("path", title, class_="cross", d="M-4-4l8 8m0-8l-8 8", transform=f"translate({a} {b})")

    @contextmanager
    def group(self, kind: str) -> Iterator[None]:
        """What is drawn inside belongs together, and can be hidden by this CSS class."""
        around, self._parts = self._parts, []
        yield
        self._parts = [*around, element("g", Markup().join(self._parts), class_=kind)]

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """Writes words at a place of the plot; `anchor` is SVG's `text-anchor`."""
        at = {"x": self.px(x), "y": self.py(y), "text_anchor": anchor}
        self._parts.append(element("text", words, class_=kind, **at))

    def _add(self, tag: str, title: str, **attributes: object) -> None:
        self._parts.append(element(tag, element("title", title) if title else "", **attributes))

    def render(self) -> Markup:
        """The chart as one SVG element."""
        width, height = self.size
        floor = height - _BOTTOM
        box = {"x": _LEFT, "y": _TOP, "width": width - _LEFT - _RIGHT, "height": floor - _TOP}
        inner = element(
            "svg", Markup().join(self._parts), class_="plot", **box, viewBox=" ".join(map(str, box.values()))
        )
        said = {"role": "img", "aria_label": self.title, "data_unit": self.x_label}
        if not self._rows:
            said["data_span"] = " ".join(f"{end:.12g}" for end in (*self.x, *self.y))
        if self.log:
            said["data_linear"] = f"{self._linear:.12g}"
        title = element("text", shortened(self.title, width), class_="title", x=0, y=13)
        drawn = title + element("g", Markup().join(self._ticks()), class_="ticks") + inner
        return element("svg", drawn, class_="chart", viewBox=f"0 0 {width} {height}", **said)

    def _ticks(self) -> Iterator[Markup]:
        """The marks of the axes."""
        width, floor = self.size[0], self.size[1] - _BOTTOM
        ends = {"x1": _LEFT, "x2": width - _RIGHT}
        marks = self._y_ticks()
        for value, words in zip(marks, numbers(marks), strict=True):
            at = self.py(value)
            yield element("line", class_="grid", **ends, y1=at, y2=at)
            place = {"x": _LEFT - 6, "y": round(at + 4, 1), "text_anchor": "end"}
            yield element("text", words, class_="tick", **place)
        yield element("line", class_="axis", **ends, y1=floor, y2=floor)
        marks = ticks(*self.x, count=max(2, width // 110))
        free = float(width)  # from here on to the left there are no words yet
        for index, (value, words) in reversed([*enumerate(zip(marks, numbers(marks), strict=True))]):
            at = self.px(value)
            yield element("line", class_="axis", x1=at, x2=at, y1=floor, y2=floor + 3)
            said = f"{words} {self.x_label}" if self.x_label and index == len(marks) - 1 else words
            anchor = "end" if said != words and at > width - 60 else "middle"
            where = width - _RIGHT if anchor == "end" else at
            wide = _DIGIT * len(said)
            if where + (0 if anchor == "end" else wide / 2) <= free:
                free = where - (wide if anchor == "end" else wide / 2)
                yield element("text", said, class_="tick", x=where, y=floor + 16, text_anchor=anchor)

    def _y_ticks(self) -> list[float]:
        if self._rows:
            return []
        if not self.log:
            return ticks(*self.y, count=4)
        if self._linear:
            return self._ticks_around_zero()
        powers = range(math.ceil(self.y[0] - 1e-9), math.floor(self.y[1] + 1e-9) + 1)
        if len(powers) >= 2:
            return [10.0**power for power in powers[:: -(-len(powers) // _MOST_POWERS)]]
        low, high = 10 ** self.y[0], 10 ** self.y[1]
        return [
            factor * 10.0**power
            for power in range(math.floor(self.y[0]), math.ceil(self.y[1]) + 1)
            for factor in (1, 2, 5)
            if low <= factor * 10.0**power <= high
        ]

    def _ticks_around_zero(self) -> list[float]:
        """0, and powers of ten on both sides of it, as many as there is room for."""
        largest = self._linear * (10 ** min(300.0, max(abs(end) for end in self.y)) - 1)
        first, last = math.ceil(math.log10(self._linear)), math.floor(math.log10(max(largest, self._linear)) + 1e-9)
        sides = 2 if self.y[0] < 0 < self.y[1] else 1
        step = max(1, -(-(last - first + 1) * sides // (_MOST_POWERS - 2)))
        sizes = [10.0**power for power in range(last, first - 1, -step)]
        found = [-size for size in sizes] + [0.0] + sizes[::-1]
        zero = self.py(0.0)
        return [
            each
            for each in found
            if self.y[0] <= self._scaled(each) <= self.y[1] and (not each or abs(self.py(each) - zero) >= FONT)
        ]


def _range(low: float, high: float) -> tuple[float, float]:
    """Both ends of an axis, far enough apart to be divided by their distance."""
    low, high = float(low), float(high)
    return low, high if high - low > 1e-12 * max(abs(low), 1e-200) else low + max(1.0, 1e-9 * abs(low))


def _exactly(place: float) -> str:
    """A place on the horizontal axis: a step with all its digits, minutes with some."""
    return f"{int(place)}" if place == int(place) else f"{place:.5g}"


def _thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of each stretch of a line, so that no spike is lost."""
    if len(x) <= most:
        return x, y
    keep = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), max(1, most // 2)):
        keep |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    index = np.array(sorted(keep))
    return x[index], y[index]
