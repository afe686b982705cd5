"""What follows a verdict, and from which checkpoint. Pure functions, hand-written cases."""

from __future__ import annotations

from typing import Any

import pytest

from fallbacks.ladder import End, Ladder, Plan
from pipeline.attempt.checkpoint_files import Checkpoint
from pipeline.attempt.record import Attempt
from pipeline.attempt.start import failed_start
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence, Verdict


def ladder(**changes: Any) -> Ladder:
    """The rungs alone; `test_remedies.py` has what is tried between them."""
    values = {key.replace("__", "."): value for key, value in changes.items()}
    return Ladder(ExperimentConfig().with_values({"ladder.remedies": 0, **values}))


UPDATE = 10  # environment steps between two metrics


def verdict(name: str, onset: int | None = None) -> Verdict:
    """A failure whose first bad metrics are those of step `onset`; 0: there were no good ones before."""
    good = onset - UPDATE if onset else None
    return Verdict(name=name, evidence=(Evidence(rule="test", onset_step=onset, last_good_step=good),))  # type: ignore[arg-type]


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(path=f"/c/{step}.pt", episode=step // 100, step=step)


def attempt(
    on: Ladder, rung: str, end: Verdict, *checkpoints: Checkpoint, number: int = 0, config: Any = None
) -> Attempt:
    index = [each.name for each in on.rungs].index(rung)
    return Attempt(number, rung, config or on.configs[index], f"run{number}", end, checkpoints)


def test_order_of_the_ladder() -> None:
    assert [rung.name for rung in ladder().rungs] == [
        "v3",
        "freeze_gat",
        "softmax_only",
        "two_experts",
        "v2_router_gat",
    ]


def test_each_rung_stands_on_the_base_and_cumulative_stacks_them() -> None:
    separate, stacked = ladder(), ladder(ladder__cumulative=True)
    assert not separate.configs[2].policy.gat_frozen
    assert stacked.configs[2].policy.gat_frozen and stacked.configs[2].phases.finetune.routing == "softmax"


def test_healthy_settles() -> None:
    on = ladder()
    end = on.after([attempt(on, "freeze_gat", verdict("healthy"))])
    assert isinstance(end, End) and end.outcome == "healthy" and end.settled_rung == "freeze_gat"


@pytest.mark.parametrize(
    ("rung", "failure", "follows"),
    [
        ("v3", "gat_oversmoothing", "freeze_gat"),
        ("v3", "expert_collapse", "softmax_only"),
        ("softmax_only", "expert_collapse", "two_experts"),
        ("v3", "router_indecision", "two_experts"),
        ("v3", "reward_plateau", "v2_router_gat"),
        ("v3", "crash", "freeze_gat"),  # says nothing of the training
    ],
)
def test_guided_ladder_skips_rungs_that_do_not_address_the_verdict(rung: str, failure: str, follows: str) -> None:
    on = ladder(ladder__guided=True, budget__retries=0)
    step = on.after([attempt(on, rung, verdict(failure, onset=50))])
    assert isinstance(step, Plan) and step.rung.name == follows
    plain = ladder(budget__retries=0).after([attempt(on, rung, verdict(failure, onset=50))])
    assert isinstance(plain, Plan) and plain.rung.name == on.rungs[[r.name for r in on.rungs].index(rung) + 1].name


def test_guided_ladder_takes_own_rungs_for_any_failure_and_ends_where_none_is_left() -> None:
    own = {"name": "own", "set": {"training.learning_rate": 1e-5}}
    on = ladder(ladder__guided=True, ladder__rungs=["v3", "freeze_gat", own, "softmax_only"])
    step = on.after([attempt(on, "v3", verdict("reward_plateau", onset=50))])
    assert isinstance(step, Plan) and step.rung.name == "own"
    end = on.after([attempt(on, "own", verdict("reward_plateau", onset=50))])
    assert isinstance(end, End) and end.outcome == "exhausted"


def test_training_failure_steps_down_at_once() -> None:
    on = ladder()
    plan = on.after([attempt(on, "v3", verdict("expert_collapse", 500), checkpoint(100))])
    assert isinstance(plan, Plan) and plan.rung.name == "freeze_gat" and plan.config.policy.gat_frozen


def test_last_rung_exhausts() -> None:
    on = ladder()
    end = on.after([attempt(on, "v2_router_gat", verdict("reward_plateau", 5))])
    assert isinstance(end, End) and end.outcome == "exhausted" and end.settled_rung is None


def test_interrupted_ends() -> None:
    on = ladder()
    end = on.after([attempt(on, "v3", verdict("interrupted"))])
    assert isinstance(end, End) and end.outcome == "interrupted"


def test_attempts_budget_ends_before_the_next_rung() -> None:
    on = ladder(budget__attempts=1)
    end = on.after([attempt(on, "v3", verdict("expert_collapse", 5))])
    assert isinstance(end, End) and end.outcome == "exhausted" and "budget.attempts" in end.reason


@pytest.mark.parametrize("name", ["crash", "hang", "out_of_memory"])
def test_infrastructure_failure_retries_the_rung_and_then_steps_down(name: str) -> None:
    on = ladder(budget__retries=1)
    first = attempt(on, "v3", verdict(name), checkpoint(100), checkpoint(200))
    plan = on.after([first])
    assert isinstance(plan, Plan) and plan.rung.name == "v3" and plan.warm_start is not None
    assert plan.warm_start.checkpoint == "/c/200.pt"
    assert plan.warm_start.exact == (name != "out_of_memory")
    again = attempt(on, "v3", verdict(name), number=1, config=plan.config)
    plan = on.after([first, again])
    assert isinstance(plan, Plan) and plan.rung.name == "freeze_gat"


@pytest.mark.parametrize(
    ("changes", "rung", "refused"),
    [
        ({"policy.kind": "ppo"}, "freeze_gat", "a graph encoder"),
        ({"policy.graph": False}, "freeze_gat", "a graph encoder"),
        ({"policy.kind": "v2_gat"}, "softmax_only", "V3's router"),
        ({"policy.kind": "ppo"}, "two_experts", "experts"),
        ({"policy.kind": "v2_gat"}, "freeze_gat", None),
    ],
)
def test_rungs_that_would_change_nothing_are_refused(changes: dict[str, Any], rung: str, refused: str | None) -> None:
    base = ExperimentConfig().with_values({**changes, "ladder.rungs": ("v3", rung)})
    if refused is None:
        Ladder(base)
    else:
        with pytest.raises(ValueError, match=rf"^ladder.rungs: {rung} needs {refused}"):
            Ladder(base)


def test_half_of_the_games_can_still_be_divided_among_the_workers() -> None:
    games, workers, seen = 12, 4, []
    while not seen or (games, workers) != seen[-1]:
        seen.append((games, workers))
        on = ladder(environment__num_envs=games, training__workers=workers)
        plan = on.after([attempt(on, "v3", verdict("out_of_memory"))])
        assert isinstance(plan, Plan)
        games, workers = plan.config.environment.num_envs, plan.config.training.workers
    assert seen == [(12, 4), (6, 2), (3, 1), (1, 1)]


def test_weights_of_another_shape_are_not_carried_over() -> None:
    """A plain policy has no encoder to hand on; experts of another size do not fit."""
    for change in ({"policy.kind": "ppo"}, {"policy.graph": False}, {"policy.expert_size": 16}):
        on = ladder()
        source = on.configs[0].with_values(change)
        failed = attempt(on, "v3", verdict("expert_collapse", onset=300), checkpoint(100), config=source)
        plan = on.after([failed])
        assert isinstance(plan, Plan) and plan.warm_start is None


def test_out_of_memory_halves_the_games() -> None:
    on = ladder(environment__num_envs=16)
    plan = on.after([attempt(on, "v3", verdict("out_of_memory"))])
    assert isinstance(plan, Plan) and plan.config.environment.num_envs == 8


def test_retry_without_a_checkpoint_starts_as_the_attempt_did() -> None:
    on = ladder()
    stepped = on.after([attempt(on, "v3", verdict("expert_collapse", 500), checkpoint(100))])
    assert isinstance(stepped, Plan)
    crashed = Attempt(1, "freeze_gat", stepped.config, "run1", verdict("crash"), (), stepped.warm_start)
    plan = on.after([attempt(on, "v3", verdict("expert_collapse", 500), checkpoint(100)), crashed])
    assert isinstance(plan, Plan) and plan.warm_start == stepped.warm_start


def start(on: Ladder, *attempts: Attempt) -> str | None:
    plan = on.after(list(attempts))
    assert isinstance(plan, Plan)
    return plan.warm_start.checkpoint if plan.warm_start else None


def test_warm_start_is_the_newest_before_the_failing_window() -> None:
    on = ladder()
    failed = attempt(on, "v3", verdict("expert_collapse", 250), *(checkpoint(step) for step in (100, 200, 300)))
    assert start(on, failed) == "/c/200.pt"


@pytest.mark.parametrize(("saved", "trusted"), [(230, True), (240, False), (250, False)])
def test_weights_that_the_first_bad_metrics_measured_are_not_trusted(saved: int, trusted: bool) -> None:
    """Metrics of step 250 measure the weights of step 240: the last ones known to be good are those of 230."""
    on = ladder()
    failed = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(saved))
    assert (start(on, failed) is not None) == trusted


def test_a_start_that_failed_at_once_is_not_used_again() -> None:
    on = ladder()
    v3 = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(100), checkpoint(200))
    plan = on.after([v3])
    assert isinstance(plan, Plan) and plan.warm_start is not None and plan.warm_start.checkpoint == "/c/200.pt"
    at_once = Attempt(1, "freeze_gat", plan.config, "run1", verdict("expert_collapse", 0), (), plan.warm_start)
    later = Attempt(1, "freeze_gat", plan.config, "run1", verdict("expert_collapse", 240), (), plan.warm_start)
    assert start(on, v3, at_once) == "/c/100.pt"
    assert start(on, v3, later) == "/c/200.pt"


def test_a_start_lies_in_a_stretch_of_sound_weights() -> None:
    on = ladder()
    saved = [checkpoint(step) for step in (50, 100, 150, 200, 250)]
    for sound, chosen in ((((0, 60), (90, 160)), 150), (((0, 60), (90, 150)), 100), (((0, 60),), 50), ((), None)):
        evidence = Evidence(rule="load", onset_step=300, last_good_step=290, sound=sound)
        failed = attempt(on, "v3", Verdict(name="expert_collapse", evidence=(evidence,)), *saved)
        assert start(on, failed) == (f"/c/{chosen}.pt" if chosen else None)


def test_a_start_from_which_an_attempt_declined_at_once_is_not_used_again() -> None:
    on = ladder()
    v3 = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(100), checkpoint(200))
    plan = on.after([v3])
    assert isinstance(plan, Plan)
    evidence = Evidence(rule="load", onset_step=260, last_good_step=250, sound=())
    declined = Verdict(name="expert_collapse", evidence=(evidence,))
    assert start(on, v3, Attempt(1, "freeze_gat", plan.config, "run1", declined, (), plan.warm_start)) == "/c/100.pt"


@pytest.mark.parametrize("rung", ["freeze_gat", "softmax_only", "two_experts", "v2_router_gat"])
def test_an_encoder_that_stays_random_is_said(rung: str) -> None:
    on = ladder(ladder__rungs=["v3", rung])
    for saved, said in (([], rung in ("freeze_gat", "v2_router_gat")), ([checkpoint(100)], False)):
        plan = on.after([attempt(on, "v3", verdict("gradient_explosion", 250), *saved)])
        assert isinstance(plan, Plan) and ("random weights" in plan.reason) == said
        assert plan.reason.startswith("after gradient_explosion of v3")


def test_a_plateau_breaks_no_weights() -> None:
    on = ladder()
    evidence = Evidence(rule="reward_plateau", onset_step=50, last_good_step=900, detection_step=900)
    flat = attempt(on, "v3", Verdict(name="reward_plateau", evidence=(evidence,)), checkpoint(800))
    assert start(on, flat) == "/c/800.pt"


def test_a_checkpoint_of_another_shape_is_passed_over() -> None:
    on = ladder(ladder__rungs=["v3", {"name": "wide", "set": {"policy.hidden_size": 128}}, "v2_router_gat"])
    v3 = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(200))
    assert start(on, v3) is None
    wide = attempt(on, "wide", verdict("expert_collapse", 500), checkpoint(400), number=1)
    assert start(on, v3, wide) == "/c/200.pt"


def test_no_healthy_checkpoint_means_from_scratch() -> None:
    on = ladder()
    assert start(on, attempt(on, "v3", verdict("expert_collapse", 50), checkpoint(100))) is None
    assert start(on, attempt(on, "v3", verdict("expert_collapse", 50))) is None


def test_warm_start_can_be_switched_off() -> None:
    on = ladder(ladder__warm_start=False)
    assert start(on, attempt(on, "v3", verdict("expert_collapse", 500), checkpoint(100))) is None


def test_an_earlier_attempts_checkpoint_serves_when_the_last_has_none() -> None:
    on = ladder()
    v3 = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(200))
    frozen = attempt(on, "freeze_gat", verdict("expert_collapse", 210), checkpoint(300), number=1)
    assert start(on, v3, frozen) == "/c/200.pt"


def test_a_checkpoint_without_the_experts_is_passed_over() -> None:
    rungs = [{"name": "two", "set": {"policy.experts": ["survival", "general"]}}, "softmax_only", "v2_router_gat"]
    on = ladder(ladder__rungs=["v3", *rungs])
    v3 = attempt(on, "v3", verdict("expert_collapse", 250), checkpoint(200))
    two = attempt(on, "two", verdict("expert_collapse", 500), checkpoint(400), number=1)
    assert start(on, v3, two) == "/c/200.pt"
    softmax = attempt(on, "softmax_only", verdict("expert_collapse", 1), number=2)
    assert start(on, v3, two, softmax) == "/c/400.pt"  # v2_router_gat takes the GAT only


def test_rung_from_yaml() -> None:
    on = ladder(ladder__rungs=["v3", {"name": "slow", "set": {"training.learning_rate": 1e-5}}])
    assert on.rungs[1].name == "slow" and on.configs[1].training.learning_rate == 1e-5


def test_rungs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="names must differ"):
        ladder(ladder__rungs=["v3", "v3"])
    with pytest.raises(ValueError, match=r"policy\.experts"):
        ladder(policy__experts=["a", "b"])


def test_an_interrupted_attempt_goes_on_in_its_own_run() -> None:
    on = ladder()
    first = attempt(on, "v3", verdict("interrupted"), checkpoint(100), checkpoint(200))
    plan = on.resume([first])
    assert isinstance(plan, Plan) and plan.continues == "run0" and plan.config == on.configs[0]
    assert plan.warm_start is not None and plan.warm_start.checkpoint == "/c/200.pt" and plan.warm_start.exact
    unborn = on.resume([attempt(on, "v3", verdict("interrupted"))])
    assert isinstance(unborn, Plan) and unborn.continues == "run0" and unborn.warm_start is None


def test_resuming_is_what_follows_where_nothing_was_interrupted() -> None:
    on = ladder()
    assert on.resume([]) == on.first()
    failed = attempt(on, "v3", verdict("expert_collapse", 200), checkpoint(100))
    assert on.resume([failed]) == on.after([failed])


def test_a_foreign_trainer_that_was_interrupted_gets_a_run_of_its_own() -> None:
    on = ladder(trainer__command=["train"])
    plan = on.resume([attempt(on, "v3", verdict("interrupted"))])
    assert isinstance(plan, Plan) and plan.continues is None and plan.rung.name == "v3"


def test_interruptions_spend_no_budget_of_attempts() -> None:
    on = ladder(budget__attempts=2)
    nights = [attempt(on, "v3", verdict("interrupted"), number=number) for number in range(5)]
    assert isinstance(on.after([*nights, attempt(on, "v3", verdict("crash"))]), Plan)
    end = on.after([*nights, attempt(on, "v3", verdict("crash")), attempt(on, "v3", verdict("crash"))])
    assert isinstance(end, End) and end.outcome == "exhausted"


def died_at_start(last_line: str = "KeyError: 'x'", certain: bool = False, **more: Any) -> Verdict:
    detail = {"exit code": 1, "last line": last_line, "certain": certain, **more}
    return Verdict(name="crash", evidence=(failed_start(detail),))


def foreign() -> Ladder:
    rungs = ["v3", *({"name": name, "set": {"trainer.parameters.rate": rate}} for rate, name in enumerate(("b", "c")))]
    return ladder(trainer__command=["train"], ladder__rungs=rungs)


def test_what_is_certain_is_tried_once() -> None:
    on = foreign()
    end = on.after([attempt(on, "v3", died_at_start(cause="there is no file x.py", certain=True))])
    assert end == End("error", "the trainer cannot start: there is no file x.py")


def test_two_starts_that_fail_alike_are_the_end() -> None:
    on = foreign()
    first, second = (attempt(on, "v3", died_at_start(), number=number) for number in (0, 1))
    assert isinstance(on.after([first]), Plan)
    end = on.after([first, second])
    assert end == End("error", "the trainer cannot start: KeyError: 'x' (twice alike)")
    other = attempt(on, "v3", died_at_start("OSError: port in use"), number=1)
    plan = on.after([first, other])
    assert isinstance(plan, Plan) and plan.rung.name == "v3"  # not alike


def test_a_death_by_signal_and_one_after_the_first_metric_are_retried() -> None:
    on = foreign()
    segfaults = [attempt(on, "v3", died_at_start("", signal="SIGSEGV"), number=number) for number in range(3)]
    assert isinstance(on.after(segfaults[:2]), Plan)
    later = on.after(segfaults)
    assert isinstance(later, Plan) and later.rung.name == "b"
    crash = verdict("crash")
    plan = on.after([attempt(on, "v3", crash), attempt(on, "v3", crash, number=1)])
    assert isinstance(plan, Plan) and plan.rung.name == "v3"


def test_a_rung_that_cannot_start_is_stepped_over_where_another_has_started() -> None:
    on = foreign()
    trained = attempt(on, "v3", verdict("gradient_explosion", 50))
    first, second = (attempt(on, "b", died_at_start(), number=number) for number in (1, 2))
    plan = on.after([trained, first, second])
    assert isinstance(plan, Plan) and plan.rung.name == "c"
    end = on.after([trained, first, second, attempt(on, "c", died_at_start(), number=3)])
    assert isinstance(end, End) and end.outcome == "error"  # alike on another rung
    certain = attempt(on, "b", died_at_start(certain=True), number=1)
    plan = on.after([trained, certain])
    assert isinstance(plan, Plan) and plan.rung.name == "c"


def test_a_start_that_was_mended_goes_on_at_its_rung_with_all_its_retries() -> None:
    on = foreign()
    failed = [attempt(on, "v3", died_at_start(), number=number) for number in (0, 1)]
    plan = on.resume(failed)
    assert isinstance(plan, Plan) and plan.rung.name == "v3" and plan.warm_start is None
    crashes = [attempt(on, "v3", verdict("crash"), number=number) for number in (2, 3)]
    plan = on.after([*failed, *crashes])
    assert isinstance(plan, Plan) and plan.rung.name == "v3" and plan.reason.startswith("retry 2 of 2")


def test_a_checkpoint_that_kills_at_its_load_is_not_used_again() -> None:
    """Another configuration takes none of that run's checkpoints any more; the same one takes an older one."""
    on = foreign()
    trained = attempt(on, "v3", verdict("gradient_explosion", 500), checkpoint(100), checkpoint(200))
    plan = on.after([trained])
    assert isinstance(plan, Plan) and plan.warm_start is not None
    dead = Attempt(1, "b", plan.config, "run1", died_at_start("ValueError: shapes"), (), plan.warm_start)
    retried = on.after([trained, dead])
    assert isinstance(retried, Plan) and retried.rung.name == "b" and retried.warm_start is None
    crashed = attempt(on, "v3", verdict("crash"), checkpoint(100), checkpoint(200))
    exact = on.after([crashed])
    assert isinstance(exact, Plan) and exact.warm_start is not None and exact.warm_start.checkpoint == "/c/200.pt"
    dead = Attempt(1, "v3", exact.config, "run1", died_at_start("RuntimeError: bad file"), (), exact.warm_start)
    older = on.after([crashed, dead])
    assert isinstance(older, Plan) and older.warm_start is not None
    assert older.warm_start.checkpoint == "/c/100.pt" and older.warm_start.exact
    deader = Attempt(2, "v3", older.config, "run2", died_at_start("RuntimeError: bad file"), (), older.warm_start)
    scratch = on.after([crashed, dead, deader])
    assert isinstance(scratch, Plan) and scratch.warm_start is None


@pytest.mark.parametrize("warm", [True, False])
def test_a_rung_may_start_from_scratch_always(warm: bool) -> None:
    rung = {"name": "small", "set": {"trainer.parameters": {"width": 8}}, "warm_start": warm}
    on = ladder(trainer__command=["train"], ladder__rungs=["v3", rung])
    plan = on.after([attempt(on, "v3", verdict("gradient_explosion", 200), checkpoint(100))])
    assert isinstance(plan, Plan) and (plan.warm_start is not None) is warm
