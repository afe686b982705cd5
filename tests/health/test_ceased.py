"""A metric that is no longer logged while others go on."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.health.ceased import CeasedRule
from pipeline.health.history import History
from pipeline.health.monitor import judge, warnings
from pipeline.health.plot import draw
from pipeline.health.rule_sets import RULE_SETS

GENERIC = RULE_SETS["generic"]


def told(history: History) -> list[str | None]:
    return [each.metric for each in warnings(history, GENERIC, ended=True) if each.rule == "no_longer_logged"]


def run(reports: int = 200, **metrics: range | list[int]) -> History:
    """A run with `lr` at each report, and of other metrics those reports at which they were logged."""
    chosen = {"lr": range(reports), **metrics}
    return History(
        {name.replace("__", "/"): [(10 * at, 1 / (at + 1)) for at in found] for name, found in chosen.items()}
    )


def test_a_loss_that_is_no_longer_logged_is_a_warning_with_its_evidence() -> None:
    history = run(train__loss=range(50))
    assert judge(history, GENERIC, ended=True) is None and told(history) == ["train/loss"]
    (found,) = [each for each in warnings(history, GENERIC, ended=True) if each.rule == "no_longer_logged"]
    expected = "never logged after step 490, while lr went on for 150 reports, to step 1990; its longest gap before: 1"
    assert found.threshold == expected and (found.onset_step, found.detection_step) == (490, 1990)
    assert warnings(history, GENERIC) == []  # while it runs
    rule = next(each for each in GENERIC if each.name == found.rule)
    draw(history, rule, found).canvas.draw()
    assert set(rule.reads(history.metrics)) == {"train/loss", "lr"}


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": range(185)},  # too short a silence
        {"loss": range(200), "eval__loss": range(0, 200, 40)},
        {"loss": range(200), "eval__loss": [0, 1, 2, 4, 8, 16, 32, 64]},
        {"loss": [0, 1, 2]},  # too few to tell
        {"pretrain__loss": range(60), "loss": range(60, 200)},
        {"phase_1__loss": range(60), "phase_2__loss": range(50, 200)},
        {"g_loss": range(60), "d_loss": range(60, 200)},
        {"warmup_loss": range(30), "loss": range(200)},
        {"epsilon": range(30), "loss": range(200)},  # not one of those that are watched
        {"system__gpu_error": range(30), "loss": range(200)},
    ],
    ids=str,
)
def test_ordinary_patterns_are_none(metrics: dict[str, range | list[int]]) -> None:
    assert told(run(**metrics)) == []


def test_an_evaluation_that_ceases_is_compared_with_its_own_gap() -> None:
    assert told(run(1000, eval__score=range(0, 400, 50))) == ["eval/score"]
    assert told(run(1000, eval__score=range(0, 600, 50))) == []


def test_random_gaps_are_no_silence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        at = np.flatnonzero(rng.random(400) < rng.uniform(0.03, 0.9))
        assert told(run(400, ep_return=at.tolist())) == []


def test_metrics_that_count_other_steps_are_compared_by_their_times() -> None:
    """One counts epochs, the other batches: the steps of the first seem to end early."""
    batches = [(at, 1000 + at, 1 / (at + 1)) for at in range(1000)]
    epochs = [(at, 1000 + 100 * at + 99, 1 / (at + 1)) for at in range(10)]
    assert told(History({"batch_loss": batches, "epoch_loss": epochs})) == []
    assert told(History({"batch_loss": batches, "epoch_loss": epochs[:5]})) == []  # a silence of five epochs
    assert told(History({"lr": batches, "loss": batches[:300]})) == ["loss"]


def test_two_files_that_are_read_one_after_the_other_are_not_compared() -> None:
    first = [(at, 1000, 1 / (at + 1)) for at in range(100)]
    second = [(at, 1001, 1 / (at + 1)) for at in range(500)]
    assert told(History({"loss": first, "val_loss": second})) == []


def test_rows_of_one_time_are_in_the_order_of_their_steps() -> None:
    rows = [(at, 1000, 1 / (at + 1)) for at in range(100)]
    assert told(History({"loss": rows[:40], "lr": rows, "acc": rows})) == ["loss"]


def test_a_metric_with_two_names_is_told_once() -> None:
    assert told(run(score=range(50), score_window=range(50))) == ["score"]


def test_one_line_for_each_text() -> None:
    rule = CeasedRule(name="r", metric="loss")
    for text in (*rule.describe(), rule.explain(run())):
        assert text and "\n" not in text and "|" not in text
