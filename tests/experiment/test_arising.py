"""Warnings are told when they arise, once, and cost little; a real store, and a clock of the test's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from pipeline.attempt.ending import Ending
from pipeline.errors import InfrastructureFailure, StoreAway
from pipeline.experiment import arising
from pipeline.experiment.arising import Arising
from pipeline.experiment.conclude import conclude
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking import tags
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store
from tests.conftest import small_config


def high(metric: str) -> ThresholdRule:
    condition = Condition(metric=metric, above=10.0)
    return ThresholdRule(name=f"high_{metric}", verdict="mine", conditions=(condition,), action="warn")


@pytest.fixture
def run_id(empty_store: Store) -> str:
    config = small_config()
    parent = empty_store.start_parent(config)
    return empty_store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="")


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 1000.0

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(arising.time, "monotonic", lambda: now)
    return later


def tagged(store: Store, run_id: str) -> list[str]:
    run = store.run(run_id)
    assert isinstance(run, AttemptRun)
    return [each.rule for each in run.warnings]


def poll(watch: Watchdog, told: Arising) -> list[str]:
    assert watch.poll() is None
    return [each.rule for each in told.look()]


def test_a_warning_is_told_soon_and_once(empty_store: Store, run_id: str, wait: Callable[[float], None]) -> None:
    rules = (high("a"), high("b"), high("never"))
    watch = Watchdog(empty_store, run_id, rules)
    told = Arising(empty_store, watch)
    assert poll(watch, told) == []  # nothing was logged
    empty_store.log_metrics(run_id, {"a": 11.0, "b": 1.0}, step=1)
    assert poll(watch, told) == ["high_a"] and tagged(empty_store, run_id) == ["high_a"]
    empty_store.log_metrics(run_id, {"a": 12.0, "b": 11.0}, step=2)
    wait(29)
    assert poll(watch, told) == []  # too soon
    empty_store.log_metrics(run_id, {"a": 1.0, "b": 1.0}, step=3)  # no poll sees its value that is too high
    wait(2)
    assert poll(watch, told) == ["high_b"] and tagged(empty_store, run_id) == ["high_a", "high_b"]
    empty_store.log_metrics(run_id, {"a": 13.0, "b": 13.0}, step=4)
    wait(60)
    assert poll(watch, told) == []

    # Another orchestrator goes on with the attempt.
    watch = Watchdog(empty_store, run_id, (*rules, high("c")))
    told = Arising(empty_store, watch)
    empty_store.log_metrics(run_id, {"a": 13.0, "b": 13.0, "c": 11.0}, step=5)
    assert poll(watch, told) == ["high_c"] and tagged(empty_store, run_id) == ["high_a", "high_b", "high_c"]

    # At the end the list is written anew, and only what is new is told.
    empty_store.log_metrics(run_id, {"never": 11.0}, step=6)
    ending = Ending.now(Verdict(name="healthy"), 1.0)
    done = conclude(empty_store, run_id, ending, (*rules, high("c")), ())
    assert [each.rule for each in done.untold] == ["high_never"]
    assert sorted(set(tagged(empty_store, run_id))) == ["high_a", "high_b", "high_c", "high_never"]
    assert [each.rule for each in done.warnings] == tagged(empty_store, run_id)
    assert conclude(empty_store, run_id, ending, (*rules, high("c")), ()).untold == ()


def test_nothing_is_read_without_news_or_without_open_rules(
    empty_store: Store, run_id: str, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    history = Watchdog.history

    def counted(self: Watchdog, *asked: object, **how: object) -> History:
        nonlocal looks
        looks += 1
        return history(self, *asked, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(Watchdog, "history", counted)
    watch = Watchdog(empty_store, run_id, (high("a"), high("b")))
    told = Arising(empty_store, watch)
    for second in range(120):
        if second < 60:
            empty_store.log_metrics(run_id, {"a": 1.0}, step=second)
        poll(watch, told)
        wait(1)
    assert looks == 3  # at 0, 30 and 60 s
    empty_store.log_metrics(run_id, {"a": 11.0, "b": 11.0}, step=100)
    assert poll(watch, told) == ["high_a", "high_b"]
    for step in range(101, 104):
        empty_store.log_metrics(run_id, {"a": 11.0, "b": 11.0}, step=step)
        wait(100)
        assert poll(watch, told) == []
    assert looks == 4


def test_long_histories_are_looked_at_less_often(
    empty_store: Store, run_id: str, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: object, history: History) -> list[Evidence]:
        wait(2)
        return []

    monkeypatch.setattr(ThresholdRule, "firings", slow)
    looks = []
    watch = Watchdog(empty_store, run_id, (high("a"),))
    told = Arising(empty_store, watch)
    for second in range(0, 1000, 50):
        empty_store.log_metrics(run_id, {"a": 1.0}, step=second)
        watch.poll()
        began = arising.time.monotonic()
        told.look()
        looks += [second] * (arising.time.monotonic() > began)
        wait(50)
    assert looks == [0, 400, 800]


@pytest.mark.parametrize("away", [StoreAway("away"), InfrastructureFailure("refused")], ids=["away", "refused"])
def test_a_store_that_does_not_answer_is_asked_later(
    away: InfrastructureFailure, empty_store: Store, run_id: str, wait: Callable[[float], None]
) -> None:
    watch = Watchdog(empty_store, run_id, (high("a"),))
    told = Arising(empty_store, watch)
    empty_store.log_metrics(run_id, {"a": 11.0}, step=1)
    watch.poll()
    for method in ("run", "history", "set_tags"):
        with pytest.MonkeyPatch.context() as patch:

            def fails(*_: object, **__: object) -> None:
                raise away

            patch.setattr(empty_store, method, fails)
            assert told.look() == []
        assert tagged(empty_store, run_id) == []
        wait(31)
    assert [each.rule for each in told.look()] == ["high_a"]  # though nothing is new since then


def test_a_rule_that_cannot_be_judged_keeps_no_other_from_warning(
    empty_store: Store, run_id: str, wait: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ThresholdRule):
        def firings(self, history: History) -> list[Evidence]:
            raise ZeroDivisionError("oh")

    broken = Broken.model_validate({**high("a").model_dump(), "name": "broken"})
    watch = Watchdog(empty_store, run_id, (broken, high("b")))
    told = Arising(empty_store, watch)
    empty_store.log_metrics(run_id, {"a": 1.0, "b": 11.0}, step=1)
    assert poll(watch, told) == ["high_b"]
    empty_store.log_metrics(run_id, {"a": 2.0}, step=2)
    wait(31)
    assert poll(watch, told) == []
    assert caplog.text.count("rule broken cannot be judged while the attempt runs: ZeroDivisionError: oh") == 1


def test_the_generic_rules_warn_live_but_for_those_of_the_end(
    empty_store: Store, run_id: str, wait: Callable[[float], None]
) -> None:
    """A loss that was NaN once is told; a score that is constant is certain only when the training has ended."""
    watch = Watchdog(empty_store, run_id, RULE_SETS["generic"])
    told = Arising(empty_store, watch)
    for step in range(60):
        loss = math.nan if step == 20 else 1.0 / (1 + step)
        empty_store.log_metrics(run_id, {"reward": 1.0, "lr": 0.1}, step=step)
        empty_store.client.log_metric(run_id, "loss", loss, step=step)
    assert poll(watch, told) == ["not_a_number"]
    done = conclude(empty_store, run_id, Ending.now(Verdict(name="healthy"), 1.0), RULE_SETS["generic"], ())
    assert "constant_score" in {each.rule for each in done.untold}
    assert "not_a_number" not in {each.rule for each in done.untold}
    assert tagged(empty_store, run_id).count("not_a_number") == 1


def test_a_warning_that_the_end_does_not_confirm_is_gone(empty_store: Store, run_id: str) -> None:
    empty_store.set_tags(run_id, {tags.WARNINGS: warnings_tag([Evidence(rule="gone", metric="a")])})
    conclude(empty_store, run_id, Ending.now(Verdict(name="healthy"), 1.0), (), ())
    assert tagged(empty_store, run_id) == []
