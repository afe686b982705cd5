"""What every rung must pass; a new one is added to `fallbacks.ladder.BUILT_IN` and is tested by this."""

from __future__ import annotations

import pytest

from fallbacks.ladder import BUILT_IN
from fallbacks.rung import Rung
from pipeline.config import RUNGS, ExperimentConfig, difference, flatten

BASE = ExperimentConfig()


@pytest.fixture(params=BUILT_IN.values(), ids=BUILT_IN)
def rung(request: pytest.FixtureRequest) -> Rung:
    return request.param  # type: ignore[no-any-return]


def test_names_are_those_of_the_configuration() -> None:
    assert tuple(BUILT_IN) == RUNGS
    assert all(rung.name == name for name, rung in BUILT_IN.items())


def test_transform_is_pure_and_idempotent(rung: Rung) -> None:
    before = flatten(BASE)
    once = rung.transform(BASE)
    assert once == rung.transform(BASE) and flatten(BASE) == before
    assert rung.transform(once) == once


def test_transform_keeps_what_is_not_its_business(rung: Rung) -> None:
    """Another seed, another environment: the same difference."""
    other = BASE.with_values({"training.seed": 9, "environment.max_episode_steps": 77, "experiment.name": "x"})
    assert difference(other, rung.transform(other)).keys() == difference(BASE, rung.transform(BASE)).keys()
    changed = rung.transform(other)
    assert changed.training.seed == 9 and changed.environment == other.environment


def test_carry_names_parts_of_the_policy(rung: Rung) -> None:
    assert set(rung.carry.modules or ()) <= {"visual", "gat", "router", "experts", "critic"}


def test_differences_are_the_briefs() -> None:
    changed = {name: difference(BASE, rung.transform(BASE)) for name, rung in BUILT_IN.items()}
    assert changed["v3"] == {}
    assert changed["freeze_gat"] == {"policy.gat_frozen": (False, True)}
    assert {key: after for key, (_, after) in changed["softmax_only"].items()} == {
        "phases.transition.routing": "softmax",
        "phases.finetune.routing": "softmax",
    }
    assert changed["two_experts"]["policy.experts"][1] == ["survival", "general"]
    v2 = {key.removeprefix("training."): after for key, (_, after) in changed["v2_router_gat"].items()}
    assert v2["policy.kind"] == "v2_gat"
    brief = {
        "learning_rate": 3e-4,
        "warmup_steps": 0,
        "clip_ratio": 0.2,
        "batch_size": 128,
        "ppo_epochs": 3,
        "max_grad_norm": 0.5,
        "entropy_coef": 0.05,
        "alpha_entropy_coef": 0.1,
        "load_balance_coef": 0.0,
        "diversity_coef": 0.0,
        "gamma": 0.99,
        "gae_lambda": 0.95,
    }
    assert {key: v2[key] for key in brief} == brief


def test_v2_has_a_router_of_its_own() -> None:
    """Whatever V3's router began with, or however fast it learnt."""
    broken = BASE.with_values({"policy.router_bias": (0, -15, 0, 0), "training.router_learning_rate_factor": 300})
    assert difference(BUILT_IN["v2_router_gat"].transform(BASE), BUILT_IN["v2_router_gat"].transform(broken)) == {}


def test_defaults_are_the_briefs_v3() -> None:
    training, phases = BASE.training, BASE.phases
    assert (training.learning_rate, training.warmup_steps, training.clip_ratio) == (1e-4, 1000, 0.15)
    assert (training.batch_size, training.ppo_epochs, training.max_grad_norm) == (256, 4, 1.0)
    assert (training.entropy_coef, training.alpha_entropy_coef) == (0.01, 0.05)
    assert (training.load_balance_coef, training.diversity_coef, training.critic_coef) == (0.01, 0.01, 0.5)
    assert (training.gamma, training.gae_lambda) == (0.995, 0.97)
    assert training.checkpoint_every_episodes == 100 and training.reward_clip == 10.0
    assert (phases.warmup_until, phases.transition_until) == (1000, 3000)
    assert (phases.temperature_start, phases.temperature_end) == (1.0, 0.5)
    assert BASE.policy.experts == ("survival", "combat", "exploration", "general") and BASE.policy.gat_layers == 2
