"""What an attempt has cost, by which tables of runs are sorted."""

from __future__ import annotations

import pytest

from pipeline.attempt.ending import Ending
from pipeline.attempt.file import WarmStart
from pipeline.compare.steps import trained_steps
from pipeline.experiment.conclude import conclude, interrupted
from pipeline.experiment.cost import cost_together
from pipeline.health.verdict import Verdict, VerdictName
from pipeline.tracking.store import Store
from tests.conftest import small_config

START = WarmStart(checkpoint="x.pt", run_id="1" * 32, episode=10)


def begun(store: Store, parent: str, number: int, steps: list[int], start: WarmStart | None = None) -> str:
    """An attempt that has logged at these steps."""
    config = small_config()
    run = store.start_attempt(parent, config, rung="v3", number=number, diff={}, warm_start=start, reason="")
    for step in steps:
        store.log_metrics(run, {"update": step / 64, "system/cpu": 50.0}, step=step)
    return run


def cost(store: Store, run: str) -> tuple[float, float, float]:
    metrics = store.client.get_run(run).data.metrics
    return metrics["cost/seconds"], metrics["cost/minutes"], metrics["cost/steps"]


@pytest.mark.parametrize("name", ["healthy", "crash", "hang", "out_of_memory", "expert_collapse", "interrupted"])
def test_every_attempt_has_a_cost_however_it_ended(name: VerdictName, empty_store: Store) -> None:
    run = begun(empty_store, empty_store.start_parent(small_config()), 0, [64, 128, 192])
    conclude(empty_store, run, Ending.now(Verdict(name=name), 90.0), (), ())
    assert cost(empty_store, run) == (90.0, 1.5, 192.0)


def test_steps_of_the_checkpoint_are_those_of_another_attempt(empty_store: Store) -> None:
    parent = empty_store.start_parent(small_config())
    first, second = begun(empty_store, parent, 0, [64, 128]), begun(empty_store, parent, 1, [192, 256], START)
    for run, seconds in ((first, 60.0), (second, 45.0)):
        conclude(empty_store, run, Ending.now(Verdict(name="healthy"), seconds), (), ())
    assert cost(empty_store, second)[2] == 128.0
    assert cost_together(empty_store, parent) == {"cost/minutes": 1.75, "cost/steps": 256.0}


def test_an_attempt_that_goes_on_has_the_cost_of_all_its_parts(empty_store: Store) -> None:
    run = begun(empty_store, empty_store.start_parent(small_config()), 0, [64, 128])
    conclude(empty_store, run, Ending.now(interrupted("a test"), 20.0), (), ())
    empty_store.reopen(run, small_config(), {})
    empty_store.log_metrics(run, {"update": 3.0}, step=192)
    conclude(empty_store, run, Ending.now(Verdict(name="healthy"), 50.0), (), ())
    assert cost(empty_store, run) == (50.0, pytest.approx(50 / 60), 192.0)


def test_an_attempt_that_has_logged_nothing_has_trained_nothing(empty_store: Store) -> None:
    parent = empty_store.start_parent(small_config())
    run = begun(empty_store, parent, 0, [])
    conclude(empty_store, run, Ending.now(Verdict(name="crash"), 3.0), (), ())
    assert cost(empty_store, run) == (3.0, 0.05, 0.0)
    assert cost_together(empty_store, empty_store.start_parent(small_config())) == {}


@pytest.mark.parametrize(
    ("steps", "scratch", "trained"),
    [
        ([], True, 0),
        ([64], True, 64),
        ([64], False, 0),
        ([64, 128], True, 128),
        ([640, 704, 768], False, 192),
        ([0, 1, 2], True, 3),
        ([100, 300, 200, 200], True, 300),
    ],
)
def test_the_spacing_of_reports_tells_what_a_checkpoint_brought(steps: list[int], scratch: bool, trained: int) -> None:
    assert trained_steps(steps, scratch=scratch) == trained
