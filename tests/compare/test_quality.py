"""Whether a policy is worth more than random play."""

from __future__ import annotations

import math

import pytest

from pipeline.attempt.ending import Ending
from pipeline.attempt.record import Attempt, AttemptSummary, best_of
from pipeline.callbacks.display import quality_markup
from pipeline.compare.scores import NO_QUALITY, Quality, sentence_of
from pipeline.compare.statistics import Interval
from pipeline.experiment.conclude import conclude
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.store import Store
from tests.conftest import small_config

RANDOM = Interval(8.0, 7.0, 9.0)


@pytest.mark.parametrize(
    ("score", "random", "name"),
    [
        (Interval(12.0, 9.1, 15.0), RANDOM, "above_random"),
        (Interval(12.0, 9.0, 15.0), RANDOM, "as_random"),
        (Interval(5.0, 4.0, 6.9), RANDOM, "below_random"),
        (Interval(5.0, math.nan, math.nan), RANDOM, "unknown"),
        (Interval(12.0, 9.1, 15.0), Interval(8.0, math.nan, math.nan), "unknown"),
        (*NO_QUALITY, "unknown"),
    ],
)
def test_above_and_below_are_apart(score: Interval, random: Interval, name: str) -> None:
    assert Quality(score, random).name == name


@pytest.mark.parametrize(
    ("scores", "random", "expected", "words"),
    [
        ((20.0, 21.0, 22.0, math.nan), (8.0, 7.0, 9.0), "above_random", "random 8.0 [7.0, 9.0]"),
        ((2.0, 1.0, 3.0), (8.0, 7.0, 9.0), "below_random", "score 2.0 ["),
        ((20.0, 21.0), (8.0,), "unknown", "random 8.0"),
        ((20.0, 21.0), (math.nan, 7.0, 9.0), "unknown", "score 20.5"),
        ((), (8.0, 7.0, 9.0), "unknown", None),
    ],
)
def test_an_attempt_says_what_its_policy_is_worth(
    scores: tuple[float, ...], random: tuple[float, ...], expected: str, words: str | None, empty_store: Store
) -> None:
    config = small_config()
    parent = empty_store.start_parent(config)
    run_id = empty_store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")
    names = ("random/score", "random/score_low", "random/score_high")
    empty_store.log_metrics(run_id, dict(zip(names, random, strict=False)))
    for step, score in enumerate(scores, 1):
        empty_store.log_metrics(run_id, {"score": score, "episodes": float(step)}, step=step)
    done = conclude(empty_store, run_id, Ending.now(Verdict(name="healthy"), 1.0), (), ())
    tags = empty_store.client.get_run(run_id).data.tags
    assert tags["ladder.quality"] == done.quality.name == expected
    assert words in tags["ladder.score"] if words else "ladder.score" not in tags


def test_where_every_rung_is_trained_the_best_one_counts() -> None:
    config = small_config()
    attempts = [
        AttemptSummary.of(
            Attempt(number, rung, config, "x", Verdict(name=name)), {"score_window": score} if score else {}, 64, 1.0
        )
        for number, (rung, name, score) in enumerate(
            [
                ("v3", "healthy", 5.0),
                ("freeze_gat", "crash", 50.0),
                ("softmax_only", "healthy", 9.0),
                ("x", "healthy", 0),
            ]
        )
    ]
    assert (best := best_of(attempts)) is not None and best.rung == "softmax_only"
    assert best_of(attempts[1:2]) is None and best_of([]) is None


def test_each_quality_has_one_sentence() -> None:
    assert quality_markup("as_random") == "; [yellow]its policy is not clearly better than random play[/]"
    assert quality_markup("unknown") == quality_markup("of another version") == ""
    assert sentence_of("of another version") == sentence_of("unknown")


def test_evidence_without_values_names_its_metric_alone() -> None:
    evidence = Evidence(rule="x", metric="loss", threshold="> 2", onset_step=1, detection_step=5)
    assert evidence.sentence() == "loss (> 2), steps 1 – 5"
