"""`ladder.until: end`: every rung is trained to its end, whatever became of those before it."""

from __future__ import annotations

from typing import Any

import pytest

from fallbacks.ladder import End, Ladder, Plan
from pipeline.attempt.checkpoint_files import Checkpoint
from pipeline.attempt.file import WarmStart
from pipeline.attempt.record import Attempt
from pipeline.attempt.start import failed_start
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence, Verdict

HEALTHY = Verdict(name="healthy")
RUNGS = ["v3", "freeze_gat", "softmax_only", "two_experts", "v2_router_gat"]


def ladder(*, warm: bool = False, **changes: Any) -> Ladder:
    values = {"ladder.until": "end", "ladder.warm_start": warm}
    return Ladder(ExperimentConfig().with_values(values | {key.replace("__", "."): changes[key] for key in changes}))


def failed(name: str, onset: int = 500, *, to_the_end: bool = False) -> Verdict:
    found = Verdict(name=name, evidence=(Evidence(rule="test", metric="loss", onset_step=onset, last_good_step=onset),))
    return found.after_its_end(10_000) if to_the_end else found


def attempt(on: Ladder, rung: str, end: Verdict, *steps: int, start: WarmStart | None = None) -> Attempt:
    config = on.configs[[each.name for each in on.rungs].index(rung)]
    saved = tuple(Checkpoint(path=f"/c/{rung}/{step}.pt", episode=step // 100, step=step) for step in steps)
    return Attempt(0, rung, config, f"run of {rung}", end, saved, start)


def test_every_rung_follows_whatever_the_verdict() -> None:
    on, done = ladder(), []
    verdicts = [HEALTHY, failed("expert_collapse", to_the_end=True), failed("reward_plateau"), HEALTHY, HEALTHY]
    step: Plan | End = on.first()
    for number, end in enumerate(verdicts):
        assert isinstance(step, Plan) and step.rung.name == RUNGS[number] and step.remedy is None
        assert step.warm_start is None and step.config == on.configs[number]
        if step.rung.name == "freeze_gat":
            assert step.reason.endswith("every rung starts from scratch, so the graph encoder keeps its random weights")
        if number:
            assert step.reason.startswith(f"rung {number + 1} of 5")
        done.append(attempt(on, RUNGS[number], end, 100, 200))
        step = on.after(done)
    assert step == End("compared", "4 of 5 rungs trained to the end, not softmax_only")


def test_nothing_was_trained_to_its_end() -> None:
    on = ladder(ladder__rungs=["v3", "freeze_gat"])
    step = on.after([attempt(on, rung, failed("expert_collapse")) for rung in ("v3", "freeze_gat")])
    assert isinstance(step, End) and step.outcome == "exhausted"


def test_no_remedy_and_no_rung_is_skipped() -> None:
    on = ladder(ladder__remedies=2, ladder__guided=True)
    step = on.after([attempt(on, "v3", failed("reward_plateau", to_the_end=True))])
    assert isinstance(step, Plan) and (step.rung.name, step.remedy) == ("freeze_gat", None)


def test_an_infrastructure_failure_has_its_retries_and_then_the_next_rung_follows() -> None:
    on, done = ladder(budget__retries=1), [attempt(ladder(), "v3", failed("crash"), 100)]
    step = on.after(done)
    assert isinstance(step, Plan) and step.rung.name == "v3" and step.warm_start is not None and step.warm_start.exact
    step = on.after([*done, attempt(on, "v3", failed("hang"))])
    assert isinstance(step, Plan) and step.rung.name == "freeze_gat" and step.warm_start is None


def test_the_last_rung_may_spend_the_last_attempt() -> None:
    on = ladder(ladder__rungs=["v3", "freeze_gat"], budget__attempts=2)
    both = [attempt(on, "v3", HEALTHY), attempt(on, "freeze_gat", HEALTHY)]
    assert on.after(both) == End("compared", "2 of 2 rungs trained to the end")
    short = ladder(ladder__rungs=["v3", "freeze_gat"], budget__attempts=1)
    step = short.after([attempt(short, "v3", HEALTHY)])
    assert isinstance(step, End) and step.outcome == "exhausted" and "budget.attempts=1" in step.reason


def test_what_cannot_start_is_an_error_or_passed_over() -> None:
    on = ladder()
    dead = Verdict(name="crash", evidence=(failed_start({"cause": "no such file", "certain": True}),))
    step = on.after([attempt(on, "v3", dead)])
    assert isinstance(step, End) and step.outcome == "error"
    step = on.after([attempt(on, "v3", HEALTHY), attempt(on, "freeze_gat", dead)])
    assert isinstance(step, Plan) and step.rung.name == "softmax_only"


def test_a_killed_orchestrator_goes_on_with_the_next_rung_or_the_one_at_work() -> None:
    on = ladder()
    done = [attempt(on, "v3", HEALTHY, 100)]
    step = on.resume(done)
    assert isinstance(step, Plan) and step.rung.name == "freeze_gat"
    cut = attempt(on, "freeze_gat", Verdict(name="interrupted"), 100)
    step = on.resume([*done, cut])
    assert isinstance(step, Plan) and step.continues == cut.run_id
    assert step.warm_start is not None and step.warm_start.run_id == cut.run_id
    end = on.resume([attempt(on, rung, HEALTHY) for rung in RUNGS])
    assert isinstance(end, End) and end.outcome == "compared"


def test_with_warm_start_all_rungs_start_from_one_checkpoint_of_the_first_half() -> None:
    on = ladder(warm=True)
    done = [attempt(on, "v3", HEALTHY, 1000, 2000, 3000, 4000, 5000)]
    starts = []
    for rung in RUNGS[1:]:
        step = on.after(done)
        assert isinstance(step, Plan) and step.rung.name == rung and step.warm_start is not None
        starts.append(step.warm_start)
        # What they come to, and what they save, moves nobody's start.
        end = failed("expert_collapse", 0) if rung == "softmax_only" else HEALTHY
        done.append(attempt(on, rung, end, 3000, 6000, start=step.warm_start))
    assert {each.checkpoint for each in starts} == {"/c/v3/2000.pt"}
    assert starts[-1].carry.modules == ("gat",)


@pytest.mark.parametrize(("onset", "expected"), [(1500, "/c/v3/1000.pt"), (500, None)])
def test_the_same_start_is_healthy_or_none(onset: int, expected: str | None) -> None:
    on = ladder(warm=True)
    step = on.after([attempt(on, "v3", failed("expert_collapse", onset, to_the_end=True), 1000, 2000, 3000, 4000)])
    assert isinstance(step, Plan)
    assert (step.warm_start.checkpoint if step.warm_start else None) == expected


def test_a_rung_that_died_of_its_start_tries_without_it() -> None:
    on = ladder(warm=True)
    v3 = attempt(on, "v3", HEALTHY, 1000, 4000)
    step = on.after([v3])
    assert isinstance(step, Plan) and step.warm_start is not None
    unloadable = Verdict(name="crash", evidence=(failed_start({"cause": "no such key"}),))
    again = on.after([v3, attempt(on, "freeze_gat", unloadable, start=step.warm_start)])
    assert isinstance(again, Plan) and again.rung.name == "freeze_gat" and again.warm_start is None


def test_an_attempt_that_went_on_after_its_verdict() -> None:
    found = failed("expert_collapse", 500)
    went_on = found.after_its_end(900)
    assert not found.trained_to_the_end and went_on.trained_to_the_end and HEALTHY.trained_to_the_end
    assert went_on.is_training_failure and went_on.sentence.endswith("; trained to the end")
    assert [went_on.trusts(step) for step in (400, 500, 800)] == [found.trusts(step) for step in (400, 500, 800)]
    assert went_on.failed_from_the_start == found.failed_from_the_start
    assert Verdict.model_validate_json(went_on.model_dump_json()) == went_on
    own = Evidence(rule="end", metric="loss")  # a rule of the experiment's own may have this name
    assert not Verdict(name="too_loud", evidence=(own,)).trained_to_the_end
