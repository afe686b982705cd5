"""What people see of a script's training, said to a real store as a script says it."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from rich.console import Console

from pipeline.commands.status import status
from pipeline.compare.command import compare, write_page
from pipeline.compare.from_store import read
from pipeline.compare.page import render
from pipeline.config import ExperimentConfig, difference
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking import tags
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store
from tests.compare.test_comparison_page import look, needs_chromium

OF_THE_GAME = ("NetHack", "routing", "expert", "game", "random", "episode", "policy", "memory")
Values = dict[str, Sequence[float]]
Ended = tuple[str, tuple[Evidence, ...]]
HEALTHY: Ended = ("healthy", ())


def script(store: Store, *attempts: tuple[Values, Ended], outcome: str = "healthy", **trainer: Any) -> str:
    """An experiment of a script; each attempt has the values of its metrics, and how it ended. Returns the parent."""
    rungs = ["v3", *({"name": f"r{number}", "set": {"trainer.parameters.a": number}} for number in range(1, 20))]
    base = ExperimentConfig.model_validate(
        {
            "experiment": {"name": "mine"},
            "trainer": {"command": ["python", "t.py"], "parameters": {"a": 0, "b": 1}, **trainer},
            "ladder": {"rungs": rungs[: max(1, len(attempts))]},
        }
    )
    parent = store.start_parent(base)
    for number, (values, (verdict, evidence)) in enumerate(attempts):
        config = base.with_values({"trainer.parameters.a": number})
        run = store.start_attempt(
            parent, config, rung=f"r{number}" if number else "v3", number=number, diff=difference(base, config),
            warm_start=None, reason="",
        )  # fmt: skip
        store.set_tags(run, {tags.COMMAND: f"python t.py --a {number}"})
        logged = [
            Metric(name, value, 1000 + step, 10 * step)
            for name, column in values.items()
            for step, value in enumerate(column, 1)
        ]
        for first in range(0, len(logged), 1000):
            store.client.log_batch(run, metrics=logged[first : first + 1000])
        store.end_attempt(run, Verdict(name=verdict, evidence=evidence), "")
    store.end_parent(parent, outcome, "v3" if outcome == "healthy" else None, None, f"**{outcome}** – the reason")
    return parent


@pytest.fixture
def page(empty_store: Store, tmp_path: Path) -> Callable[..., str]:
    def make(*attempts: tuple[Values, Ended], **how: Any) -> str:
        parent = script(empty_store, *attempts, **how)
        return write_page(read(empty_store, [parent]), empty_store, tmp_path).read_text()

    return make


def titles(text: str) -> list[str]:
    return re.findall(r'<text class="title"[^>]*>([^<]*)', text)


def body(text: str) -> str:
    return text[text.index("<body>") :]


def test_curves_are_those_of_the_script_and_nothing_is_of_a_game(page: Callable[..., str]) -> None:
    falling = {"loss": [3.0, 2.0, 1.0], "val/acc": [0.1, 0.5, 0.9], "progress": [0.3, 0.6, 1.0]}
    text = page((falling, ("runaway", ())), (falling, HEALTHY), names={"score": "val/acc"})
    assert titles(text) == ["val/acc · score", "loss"]
    assert text.count('class="line c0"') == text.count('class="line c1"') == 2
    assert "30" in text and "steps trained" in text and "best score" in text and "python t.py --a 1" in text
    assert [word for word in OF_THE_GAME if word.lower() in re.sub("<[^>]*>", " ", body(text)).lower()] == []
    assert "<code>trainer.parameters.a</code></td><td>0</td><td><b>1</b>" in text and "parameters.b" not in text


def test_a_script_without_metrics_has_no_empty_chart(page: Callable[..., str]) -> None:
    text = page(({}, ("crash", (Evidence(rule="exit", detail={"cause": "no module x"}),))), outcome="error")
    assert '<svg class="chart"' not in text and "Metrics" not in text and "steps trained" not in text
    assert "The reason." in text and "no module x" in text


def test_more_metrics_than_have_room_are_named(page: Callable[..., str]) -> None:
    values = {f"diag/v{number}": [1.0, 2.0] for number in range(58)} | {"loss": [2.0, 1.0], "lr": [0.1, 0.1]}
    text = page((values, HEALTHY))
    assert len(titles(text)) == 6 and "54 more metrics in MLflow" in text and "<code>diag/v57</code>" in text


def test_what_is_not_finite_is_a_gap_and_a_mark(page: Callable[..., str]) -> None:
    """SQL stores have infinity as 1.797e308."""
    loss = [3.0, 2.0, math.nan, 2.0, 1.0, math.inf, 1.0, 0.5, -math.inf]
    text = page(({"loss": loss, "score": [math.nan] * 3}, HEALTHY))
    assert titles(text) == ["loss"] and "Without a finite value: <code>score</code>" in text
    assert text.count('<polyline class="line c0"') == 3 and text.count('<rect class="odd"') == 3
    assert "loss is NaN at 1 step, first at 30" in text and "−∞" in text
    assert "<code>loss</code> in 3 of 9 reports, first at step 30" in text


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, -10.0, 1e9, 1e12, math.inf, math.nan], "symlog"),
        ([1.0, 10.0, 1e9, 1e12], "log"),
        ([1.0, 0.9, 0.8], ""),
        ([1e-3] * 5, ""),
        ([0.0] * 5, ""),
        ([5e-324, 1e299], "log"),
        ([-1e299, 5e-324, 1e299], "symlog"),
        ([-1.0, -100.0, -1e5], "symlog"),
        ([3.0], ""),
    ],
    ids=str,
)
def test_any_values_have_an_axis(page: Callable[..., str], values: list[float], scale: str) -> None:
    found = Evidence(rule="big", metric="loss", values=(1.0,), threshold="> 1e+06, 2 of 3 reports", onset_step=30,
                     detection_step=40)  # fmt: skip
    text = page(({"loss": values}, ("gradient_explosion", (found,))), outcome="exhausted")
    assert titles(text)[0] == (f"loss · {scale}" if scale else "loss")
    assert "nan" not in re.sub("<title>.*?</title>", "", " ".join(re.findall("<svg.*?</svg>", text))).lower()
    places = [float(y) for y in re.findall(r' y1?="([-0-9.]+)"', " ".join(re.findall("<svg.*?</svg>", text)))]
    assert all(-1 < place < 230 for place in places)
    for chart in re.findall('<svg class="chart".*?</svg>', text):
        ticks = re.findall(r'<text class="tick" x="38.0"[^>]*>([^<]*)', chart)
        assert 1 <= len(ticks) <= 9 and all(len(tick) <= 6 for tick in ticks) and len({*ticks}) == len(ticks)


def test_twelve_attempts_can_be_told_apart(page: Callable[..., str]) -> None:
    failed = [({"loss": [1.0, 2.0 + number]}, ("runaway", ())) for number in range(11)]
    text = page(*failed, ({"loss": [1.0, 0.5]}, HEALTHY))
    lines = re.findall(r'<polyline class="(line [^"]*)"', text)
    assert len({*lines}) == 12 and "line c0 again" in lines and text.count('class="swatch again"') == 4


def test_warnings_stand_at_the_attempt(empty_store: Store) -> None:
    parent = script(empty_store, ({"loss": [1.0, 2.0], "acc": [0.1, 0.2]}, HEALTHY))
    (run,) = read(empty_store, [parent]).attempts.run_id
    warned = [
        Evidence(rule="mine", detail={"reason": "was never judged: metric x was never logged"}),
        *(Evidence(rule="still", metric=name, threshold="< 1") for name in ("acc", "loss")),
    ]
    empty_store.set_tags(run, {tags.WARNINGS: warnings_tag(warned), tags.NOT_STORED: "model.pt: the store is full"})
    text = render(read(empty_store, [parent]))
    assert "was never judged: metric x was never logged" in text and "also <code>loss</code>" in text
    assert "not in the store: model.pt: the store is full" in text


def test_long_names_fit_and_odd_ones_are_escaped(page: Callable[..., str]) -> None:
    long = "train/" + "very_long_name/" * 8 + "loss"
    text = page(({long: [1.0, 2.0], "a b/x-loss": [1.0, 2.0]}, HEALTHY))
    assert all(len(title) <= 70 for title in titles(text)) and any(title.endswith("/loss") for title in titles(text))


def test_metrics_of_a_script_that_is_judged_as_v3_have_the_bands(empty_store: Store) -> None:
    parent = script(empty_store, ({"gradient_norm": [1.0, 2.0]}, HEALTHY))
    night = read(empty_store, [parent])
    assert "normal here" not in render(night)
    shown = {parent: dataclasses.replace(night.shown[parent], bands=True)}
    assert "normal here" in render(dataclasses.replace(night, shown=shown))


def test_tables_have_the_columns_that_are_known(empty_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    parent = script(empty_store, ({"loss": [1.0, 0.52]}, ("crash", ())), outcome="exhausted")
    compare(empty_store, [parent], None, Console(width=200, highlight=False))
    said = capsys.readouterr().out
    assert "to step" in said and "to episode" not in said and "score" not in said and "the reason" in said
    console = Console(file=io.StringIO(), width=200, color_system=None)
    status(empty_store, console)
    assert isinstance(console.file, io.StringIO)
    assert "step 20" in console.file.getvalue() and "loss 0.52" in console.file.getvalue()


def test_several_seeds_of_a_script(empty_store: Store, tmp_path: Path) -> None:
    parents = [script(empty_store, ({"loss": [1.0, 0.5]}, HEALTHY)) for _ in range(2)]
    text = write_page(read(empty_store, parents), empty_store, tmp_path).read_text()
    assert "2 of 2" in text and titles(text)[0] == "loss" and "random" not in body(text) and ">score<" not in text


@needs_chromium
@pytest.mark.parametrize("flags", [(), ("--blink-settings=preferredColorScheme=0",)], ids=["light", "dark"])
def test_page_is_legible(empty_store: Store, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """On a narrow screen: no word is pale, tiny or beyond the edge, and no chart is empty."""
    long = f"train/{'very_long_name' * 6}/loss"
    found = Evidence(rule="big", metric="loss", values=(math.nan,), threshold="> 1", onset_step=20, detection_step=30)
    failed = {"loss": [2.0, math.nan, 1e9], long: [1.0, -1e9, math.inf], "score": [math.nan] * 3}
    parent = script(empty_store, (failed, ("runaway", (found,))), ({"loss": [1.0, 0.5]}, HEALTHY))
    seen = look(write_page(read(empty_store, [parent]), empty_store, tmp_path), tmp_path, 390, *flags)
    assert seen["low"] == [] and seen["over"] == [] and seen["scroll"] <= seen["width"]
    assert seen["charts"] == 3 and seen["blank"] == 0 and seen["smallest"] >= 9
