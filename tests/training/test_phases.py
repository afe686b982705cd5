"""The brief's table of phases, and how the three factors of the learning rate compose."""

from __future__ import annotations

import math

import pytest

from pipeline.config import ExperimentConfig
from pipeline.health.phase import Phase
from pipeline.training.phases import learning_rate_at, phase_at, temperature_at

BRIEF = ExperimentConfig()
NO_COSINE = BRIEF.with_values({"training.cosine": False})


@pytest.mark.parametrize(
    ("episode", "phase"),
    [
        (0, Phase.WARMUP),
        (999, Phase.WARMUP),
        (1000, Phase.TRANSITION),
        (2999, Phase.TRANSITION),
        (3000, Phase.FINETUNE),
        (9999, Phase.FINETUNE),
    ],
)
def test_phases_switch_at_the_briefs_episodes(episode: int, phase: int) -> None:
    assert phase_at(episode, BRIEF.phases) == phase


@pytest.mark.parametrize(
    ("episode", "temperature"), [(0, 1.0), (1000, 1.0), (1500, 0.875), (2000, 0.75), (3000, 0.5), (5000, 0.5)]
)
def test_temperature_is_linear_in_the_episode(episode: int, temperature: float) -> None:
    assert temperature_at(episode, BRIEF.phases) == pytest.approx(temperature)


def test_softmax_phases_have_temperature_one() -> None:
    phases = BRIEF.with_values({"phases.finetune.routing": "softmax"}).phases
    assert temperature_at(4000, phases) == 1.0


@pytest.mark.parametrize(("phase", "rate"), [(Phase.WARMUP, 1e-4), (Phase.TRANSITION, 5e-5), (Phase.FINETUNE, 1e-5)])
def test_each_phase_has_the_briefs_rate(phase: int, rate: float) -> None:
    training, phases = NO_COSINE.training, NO_COSINE.phases
    assert learning_rate_at(5000, 0, phase, training, phases) == pytest.approx(rate)


def test_warmup_is_linear_in_optimiser_steps_in_any_phase() -> None:
    training, phases = NO_COSINE.training, NO_COSINE.phases
    for phase, rate in ((Phase.WARMUP, 1e-4), (Phase.TRANSITION, 5e-5)):
        assert learning_rate_at(0, 0, phase, training, phases) == pytest.approx(rate / 1000)
        assert learning_rate_at(499, 0, phase, training, phases) == pytest.approx(rate / 2)
        assert learning_rate_at(999, 0, phase, training, phases) == pytest.approx(rate)


def test_cosine_composes_with_phase_and_warmup() -> None:
    training, phases = BRIEF.training, BRIEF.phases
    floor = training.cosine_floor
    for episode in (0, 1250, 2500, 5000, 6000):
        cosine = floor + (1 - floor) * (1 + math.cos(math.pi * min(1, episode / 5000))) / 2
        assert learning_rate_at(499, episode, Phase.TRANSITION, training, phases) == pytest.approx(5e-5 * 0.5 * cosine)


def test_schedule_scales_to_a_shorter_budget() -> None:
    short = BRIEF.with_values(
        {"phases.warmup_until": 10, "phases.transition_until": 30, "training.episodes": 50, "training.cosine": False}
    )
    assert [phase_at(episode, short.phases) for episode in (9, 10, 29, 30)] == [0, 1, 1, 2]
    assert temperature_at(20, short.phases) == pytest.approx(0.75)


def test_empty_phases_are_possible() -> None:
    phases = BRIEF.with_values({"phases.warmup_until": 0, "phases.transition_until": 0}).phases
    assert phase_at(0, phases) == Phase.FINETUNE and temperature_at(0, phases) == 0.5
