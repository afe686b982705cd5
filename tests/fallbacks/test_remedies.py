"""The brief's remedies: what each changes, and when the ladder tries one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.suite import load_suite
from fallbacks.ladder import BUILT_IN, End, Ladder, Plan
from fallbacks.remedies import REMEDIES, remedy_for
from fallbacks.remedies.remedy import Remedy
from pipeline.attempt.checkpoint_files import Checkpoint
from pipeline.attempt.record import Attempt
from pipeline.config import ExperimentConfig, difference, flatten
from pipeline.health.verdict import TRAINING_FAILURES, Evidence, Verdict

BASE = ExperimentConfig()


@pytest.fixture(params=REMEDIES.values(), ids=REMEDIES)
def remedy(request: pytest.FixtureRequest) -> Remedy:
    return request.param  # type: ignore[no-any-return]


def config(**changes: Any) -> ExperimentConfig:
    return BASE.with_values({key.replace("__", "."): value for key, value in changes.items()})


def ladder(**changes: Any) -> Ladder:
    return Ladder(config(**changes))


def failure(name: str, good: int | None = 400) -> Verdict:
    """A failure whose newest good metrics are those of this step."""
    return Verdict(name=name, evidence=(Evidence(rule="test", onset_step=good, last_good_step=good),))


def ended(plan: Plan, end: Verdict, *steps: int, number: int = 0) -> Attempt:
    """The attempt of a plan, with checkpoints of these steps; a hundred steps are an episode."""
    saved = tuple(Checkpoint(path=f"/{number}/{step}.pt", episode=step // 100, step=step) for step in steps)
    return Attempt(number, plan.rung.name, plan.config, f"run{number}", end, saved, plan.warm_start, plan.remedy)


def go_down(on: Ladder, *verdicts: str) -> list[Plan | End]:
    """What follows, one after the other, where each attempt fails so late that its checkpoint of step 300 is good."""
    steps: list[Plan | End] = [on.first()]
    attempts: list[Attempt] = []
    for number, name in enumerate(verdicts):
        plan = steps[-1]
        assert isinstance(plan, Plan)
        attempts.append(ended(plan, failure(name), 300, number=number))
        steps.append(on.after(attempts))
    return steps


def labels(steps: list[Plan | End]) -> list[str]:
    return [step.label if isinstance(step, Plan) else step.outcome for step in steps]


# What a remedy changes


def test_too_large_steps_are_restored_whatever_they_broke(remedy: Remedy) -> None:
    wild = config(training__learning_rate=0.3, training__max_grad_norm=1e9)
    restored = remedy.restored(wild)
    assert restored.training.learning_rate == BASE.training.learning_rate
    assert restored.training.max_grad_norm == BASE.training.max_grad_norm
    tuned = config(training__learning_rate=3 * BASE.training.learning_rate, training__max_grad_norm=2.0)
    assert remedy.restored(tuned) == tuned


def test_names_are_their_own_and_no_two_cure_the_same() -> None:
    assert all(remedy.name == name for name, remedy in REMEDIES.items())
    cured = [verdict for each in REMEDIES.values() for verdict in each.cures]
    assert sorted(cured) == sorted(set(cured)) and set(TRAINING_FAILURES) - set(cured) == {"router_indecision"}
    assert remedy_for("a_rule_of_ones_own") is None and not set(REMEDIES) & set(BUILT_IN)


def test_keys_exist_and_the_briefs_values_stay(remedy: Remedy) -> None:
    keys = {each.key for each in remedy.restores} | remedy.scales.keys()
    assert keys <= flatten(BASE).keys()
    assert remedy.restored(BASE) == BASE


def test_applied_is_pure_and_keeps_what_is_not_its_business(remedy: Remedy) -> None:
    other = config(training__seed=9, environment__max_episode_steps=77, experiment__name="x")
    before = flatten(other)
    changed = remedy.applied(other, 100)
    assert changed == remedy.applied(other, 100) and flatten(other) == before
    assert difference(other, changed).keys() == difference(BASE, remedy.applied(BASE, 100)).keys()
    assert remedy.fits(BASE.policy) and difference(BASE, changed)


def test_carry_names_parts_of_the_policy(remedy: Remedy) -> None:
    assert set(remedy.carry.forgets) <= {"visual", "gat", "router", "experts", "critic"}
    assert remedy.carry.modules is None and remedy.carry.schedule


def changes(verdict: str, episode: int = 0, **base: Any) -> dict[str, Any]:
    found = remedy_for(verdict)
    assert found is not None
    before = config(**base)
    return {key: after for key, (_, after) in difference(before, found.applied(before, episode)).items()}


@pytest.mark.parametrize("verdict", ["gradient_explosion", "numerical_instability"])
def test_explosion_and_nan_have_smaller_steps(verdict: str) -> None:
    assert changes(verdict) == {"training.learning_rate": 5e-5, "training.max_grad_norm": 0.5}
    broken = {"policy__gat_layer_norm": False, "training__max_grad_norm": 1e9, "training__critic_coef": 1000.0}
    assert changes(verdict, **broken, training__learning_rate=6e-4) == {
        "training.learning_rate": 3e-4,  # tuned: within ten times the brief's
        "training.max_grad_norm": 0.5,
        "training.critic_coef": 0.5,
        "policy.gat_layer_norm": True,
    }
    assert changes(verdict, training__learning_rate=0.3)["training.learning_rate"] == 5e-5
    assert changes(verdict, training__warmup_steps=0)["training.warmup_steps"] == 1000
    assert "training.warmup_steps" not in changes(verdict, training__warmup_steps=4)  # a short run
    carry = REMEDIES["calm_gradients"].carry
    assert not carry.warmed_up and not carry.optimiser


def test_collapse_has_softmax_again_and_is_annealed_more_slowly() -> None:
    again = {"phases.warmup_until": 2000, "phases.transition_until": 5000}
    assert changes("expert_collapse", episode=1500) == {"training.load_balance_coef": 0.03, **again}
    long = changes("expert_collapse", episode=1500, training__episodes=20_000)
    assert (long["phases.warmup_until"], long["phases.transition_until"]) == (3500, 7500)
    early = changes("expert_collapse", episode=100)
    assert "phases.warmup_until" not in early and early["phases.transition_until"] == 5000
    end = changes("expert_collapse", episode=4900)
    assert end["phases.warmup_until"] == end["phases.transition_until"] == 5400
    broken = {
        "phases__temperature_end": 0.01,
        "training__alpha_entropy_coef": -0.5,
        "training__load_balance_coef": -10.0,
    }
    found = changes("expert_collapse", **broken, policy__router_bias=(0.0, 8.0, 0.0, 0.0))
    assert found["phases.temperature_end"] == 0.5 and found["policy.router_bias"] == []
    assert (found["training.alpha_entropy_coef"], found["training.load_balance_coef"]) == (0.05, 0.03)
    assert REMEDIES["rebalance_router"].carry.forgets == ("router",)


def test_oversmoothing_has_at_most_two_layers_with_residuals_and_dropout() -> None:
    assert changes("gat_oversmoothing") == {"training.gat_learning_rate_factor": 0.3}
    broken = {"gat_layers": 3, "gat_residual": False, "gat_dropout": 0.0, "attention_temperature": 1000.0}
    found = changes("gat_oversmoothing", **{f"policy__{key}": value for key, value in broken.items()})
    assert found == {
        "policy.gat_layers": 2,
        "policy.gat_residual": True,
        "policy.gat_dropout": 0.1,
        "policy.attention_temperature": 1.0,
        "training.gat_learning_rate_factor": 0.3,
    }
    assert "policy.gat_layers" not in changes("gat_oversmoothing", policy__gat_layers=1)


def test_plateau_has_more_exploration_shaping_and_entropy() -> None:
    found = changes("reward_plateau")
    assert found == {
        "training.entropy_coef": 0.03,
        "environment.shaping.exploration": 0.2,
        "environment.shaping.descent": 6.0,
        "environment.shaping.stairs": 0.2,
    }
    assert changes("reward_plateau", training__learning_rate=0.0, training__entropy_coef=-0.3) == found | {
        "training.learning_rate": 1e-4
    }


@pytest.mark.parametrize(
    "fault", [each for each in load_suite().values() if each.of_training], ids=lambda each: each.name
)
def test_every_fault_of_the_suite_can_have_every_remedy_at_every_rung(fault: Any, remedy: Remedy) -> None:
    for rung in BUILT_IN.values():
        found = remedy.applied(rung.transform(fault.config()), 50)
        assert not any(each.deviates(flatten(found)[each.key]) for each in remedy.restores if each.harmful == "other")


# When it is tried


def test_a_remedy_comes_before_the_next_rung_from_the_rungs_last_good_checkpoint() -> None:
    on = ladder()
    first = ended(on.first(), failure("expert_collapse"), 100, 300, 500)
    plan = on.after([first])
    assert isinstance(plan, Plan) and (plan.rung.name, plan.remedy) == ("v3", "rebalance_router")
    assert plan.label == "v3 + rebalance_router" and plan.reason == "the remedy for expert_collapse of v3"
    start = plan.warm_start
    assert start is not None and (start.checkpoint, start.carry.forgets, start.exact) == (
        "/0/300.pt",
        ("router",),
        False,
    )
    assert plan.config == REMEDIES["rebalance_router"].applied(on.configs[0], 3)


@pytest.mark.parametrize("began", [250, None])
def test_where_the_router_declined_from_the_first_its_leader_becomes_every_expert(began: int | None) -> None:
    found = Evidence(rule="test", onset_step=400, last_good_step=400, sound=(), sound_elsewhere=((0, 450),))
    if began is not None:
        found = found.model_copy(update={"sound": ((0, began),)})
    first = ended(ladder().first(), Verdict(name="expert_collapse", evidence=(found,)), 100, 300, 500)
    plan = ladder().after([first])
    assert isinstance(plan, Plan) and plan.remedy == "rebalance_router" and plan.warm_start is not None
    start = plan.warm_start
    assert (start.checkpoint, start.carry.upcycles) == (("/0/100.pt", False) if began else ("/0/300.pt", True))
    gradients = Evidence(rule="another", onset_step=400, last_good_step=400, sound=())
    worse = Verdict(name="expert_collapse", evidence=(found.model_copy(update={"sound": ()}), gradients))
    plan = ladder().after([ended(ladder().first(), worse, 100, 300)])
    assert isinstance(plan, Plan) and plan.warm_start is None  # something else was wrong too


def test_the_brief_s_ladder_alone() -> None:
    on = ladder(ladder__remedies=0)
    assert labels(go_down(on, *["expert_collapse"] * 5)) == [*BUILT_IN, "exhausted"]


def test_after_a_remedy_failed_the_next_rung_follows() -> None:
    plans = go_down(ladder(), "gat_oversmoothing", "gat_oversmoothing")
    assert labels(plans) == ["v3", "v3 + shallow_gat", "freeze_gat"]
    rung = plans[-1]
    assert isinstance(rung, Plan) and rung.config == ladder().configs[1]  # the encoder's rate is the base's again
    assert rung.reason == "after gat_oversmoothing of v3 + shallow_gat"


def test_another_verdict_has_its_remedy_on_the_same_rung_only_if_there_is_one_more() -> None:
    failures = ("expert_collapse", "gradient_explosion", "expert_collapse")
    assert labels(go_down(ladder(), *failures[:2])) == ["v3", "v3 + rebalance_router", "freeze_gat"]
    plans = go_down(ladder(ladder__remedies=2), *failures)
    assert labels(plans) == ["v3", "v3 + rebalance_router", "v3 + calm_gradients", "freeze_gat"]
    both = plans[2]
    assert isinstance(both, Plan) and both.config.training.load_balance_coef == 0.03  # on top of the first
    assert both.config.training.learning_rate == 5e-5


def test_the_same_verdict_has_its_remedy_once() -> None:
    plans = go_down(ladder(ladder__remedies=5), "gradient_explosion", "numerical_instability")
    assert labels(plans) == ["v3", "v3 + calm_gradients", "freeze_gat"]


def test_every_rung_may_try_one() -> None:
    plans = go_down(ladder(), "gradient_explosion", "reward_plateau", "expert_collapse", "expert_collapse")
    assert labels(plans) == ["v3", "v3 + calm_gradients", "freeze_gat", "freeze_gat + rebalance_router", "softmax_only"]


def test_the_last_rung_starts_its_remedy_from_all_that_it_has_learnt() -> None:
    """As a rung it takes the graph encoder alone; its own checkpoint has its own router and experts."""
    on = ladder(ladder__rungs=["v3", "v2_router_gat"])
    plans = go_down(on, "gradient_explosion", "gradient_explosion", "reward_plateau", "reward_plateau")
    assert labels(plans)[2:] == ["v2_router_gat", "v2_router_gat + explore_more", "exhausted"]
    rung, remedied = plans[2:4]
    assert isinstance(rung, Plan) and rung.warm_start is not None and rung.warm_start.carry.modules == ("gat",)
    assert isinstance(remedied, Plan) and remedied.warm_start is not None
    assert (remedied.warm_start.run_id, remedied.warm_start.carry.modules) == ("run2", None)


@pytest.mark.parametrize(
    ("rung", "verdict"),
    [
        ("freeze_gat", "gat_oversmoothing"),  # that encoder learns no more
        ("v2_router_gat", "expert_collapse"),  # another router
        ("v3", "router_indecision"),  # the brief names none
        ("v3", "ones_own_rule"),
    ],
)
def test_a_verdict_without_a_remedy_steps_down(rung: str, verdict: str) -> None:
    on = ladder(ladder__rungs=[rung, "two_experts"])
    assert labels(go_down(on, verdict)) == [rung, "two_experts"]


def test_no_remedies_for_a_trainer_of_the_users_own() -> None:
    rungs = ["v3", {"name": "slow", "set": {"trainer.parameters": {"rate": 1}}}]
    own = ExperimentConfig.model_validate({"trainer": {"command": ["train"]}, "ladder": {"rungs": rungs}})
    assert own.ladder.remedies == 0
    for on in (Ladder(own), ladder(trainer__command=["train"], ladder__rungs=rungs)):
        assert labels(go_down(on, "gradient_explosion")) == ["v3", "slow"]


def test_what_is_restored_stays_on_the_rungs_below() -> None:
    """What made one rung fail would make the next one fail too; what was scaled for one rung is not needed there."""
    on = ladder(training__critic_coef=1000.0, training__max_grad_norm=1e9)
    rung = go_down(on, "gradient_explosion", "gradient_explosion")[-1]
    assert isinstance(rung, Plan) and rung.rung.name == "freeze_gat"
    assert (rung.config.training.critic_coef, rung.config.training.max_grad_norm) == (0.5, 1.0)
    assert rung.config.training.learning_rate == 1e-4
    assert rung.reason == (
        "after gradient_explosion of v3 + calm_gradients; it keeps training.critic_coef, training.max_grad_norm"
    )
    assert on.configs[1].training.critic_coef == 1000  # the plain ladder's


def test_a_cumulative_ladder_keeps_all_of_it() -> None:
    on = ladder(ladder__cumulative=True)
    plans = go_down(on, "expert_collapse", "expert_collapse", "gradient_explosion", "gradient_explosion")
    frozen, softmax = plans[2], plans[4]
    assert isinstance(frozen, Plan) and frozen.config.training.load_balance_coef == 0.03
    assert frozen.config.phases == plans[1].config.phases  # type: ignore[union-attr]
    assert isinstance(softmax, Plan) and softmax.rung.name == "softmax_only" and softmax.config.policy.gat_frozen
    assert (softmax.config.training.load_balance_coef, softmax.config.training.learning_rate) == (0.03, 5e-5)


def test_a_start_from_scratch_stays_one() -> None:
    plan = go_down(ladder(ladder__warm_start=False), "expert_collapse")[-1]
    assert isinstance(plan, Plan) and plan.remedy and plan.warm_start is None
    assert plan.config.phases.warmup_until == 1000  # nothing to repeat


def test_layers_that_do_not_fit_start_from_scratch() -> None:
    plan = go_down(ladder(policy__gat_layers=5), "gat_oversmoothing")[-1]
    assert isinstance(plan, Plan) and plan.config.policy.gat_layers == 2 and plan.warm_start is None


def test_a_crash_of_a_remedy_is_retried_as_the_remedy() -> None:
    on = ladder(budget__retries=1)
    first = ended(on.first(), failure("expert_collapse"), 300)
    plan = on.after([first])
    assert isinstance(plan, Plan)
    crashed = ended(plan, Verdict(name="crash"), number=1)
    retry = on.after([first, crashed])
    assert isinstance(retry, Plan) and retry.label == plan.label and retry.config == plan.config
    assert retry.warm_start == plan.warm_start
    again = on.after([first, crashed, ended(retry, Verdict(name="crash"), 400, number=2)])
    assert isinstance(again, Plan) and again.label == "freeze_gat"


def test_a_healthy_remedy_settles_on_its_rung() -> None:
    on = ladder()
    first = ended(on.first(), failure("expert_collapse"), 300)
    plan = on.after([first])
    assert isinstance(plan, Plan)
    end = on.after([first, ended(plan, Verdict(name="healthy"), number=1)])
    assert end == End("healthy", "v3 + rebalance_router trained to the end", settled_rung="v3")


def test_an_interrupted_remedy_goes_on_and_counts_as_tried() -> None:
    on = ladder()
    first = ended(on.first(), failure("expert_collapse"), 300)
    plan = on.after([first])
    assert isinstance(plan, Plan)
    cut = ended(plan, Verdict(name="interrupted"), 600, number=1)
    going = on.resume([first, cut])
    assert isinstance(going, Plan) and going.label == plan.label and going.continues == "run1"
    assert going.config == plan.config and going.began_from == plan.warm_start
    failed = ended(plan, failure("gat_oversmoothing"), 600, number=1)
    assert labels([on.resume([first, failed])]) == ["freeze_gat"]


def test_memory_that_ran_out_stays_saved() -> None:
    on = ladder(environment__num_envs=16)
    first = ended(on.first(), Verdict(name="out_of_memory"), 100)
    smaller = on.after([first])
    assert isinstance(smaller, Plan)
    plan = on.after([first, ended(smaller, failure("expert_collapse"), 300, number=1)])
    assert isinstance(plan, Plan) and plan.remedy and plan.config.environment.num_envs == 8


def test_the_budget_of_attempts_counts_remedies() -> None:
    assert labels(go_down(ladder(budget__attempts=1), "expert_collapse")) == ["v3", "exhausted"]
