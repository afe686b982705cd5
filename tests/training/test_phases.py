"""The brief's table of phases, and how the three factors of the learning rate compose."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from pipeline.config import ExperimentConfig
from pipeline.health.phase import Phase
from pipeline.training.phases import annealed_factor, learning_rate_at, phase_at, temperature_at

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


FIRST, MIDDLE, LAST = (0, 1000, 3000), (500, 2000, 4000), (999, 2999, 4999)


@pytest.mark.parametrize(
    ("episodes", "rates"),
    [
        (FIRST, (1e-4, 5e-5, 1e-5)),
        (MIDDLE, (7.5e-5, 3e-5, 5.5e-6)),
        (LAST, (5e-5, 1e-5, 1e-6)),
    ],
)
def test_each_phase_begins_with_the_briefs_rate_and_ends_with_the_next_ones(
    episodes: tuple[int, ...], rates: tuple[float, ...]
) -> None:
    training, phases = BRIEF.training, BRIEF.phases
    for phase, episode, rate in zip(Phase, episodes, rates, strict=True):
        assert phase_at(episode, phases) == phase
        assert learning_rate_at(10_000, episode, phase, training, phases) == pytest.approx(rate, rel=1e-4)
        assert learning_rate_at(499, episode, phase, training, phases) == pytest.approx(rate / 2, rel=1e-4)


SCHEDULES = {
    "the brief's": {},
    "short": {"training.episodes": 300, "phases.warmup_until": 100, "phases.transition_until": 200},
    "without warm-up": {"phases.warmup_until": 0},
    "without transition": {"phases.transition_until": 1000},
    "one phase": {"phases.warmup_until": 0, "phases.transition_until": 0},
    "rising": {"phases.finetune.learning_rate_factor": 3.0},
    "cut off": {"training.episodes": 1500},
    "cut off at the border": {"training.episodes": 3000},
    "an episode long": {"training.episodes": 1, "phases.warmup_until": 0, "phases.transition_until": 0},
}


@pytest.mark.parametrize("changes", SCHEDULES.values(), ids=SCHEDULES)
def test_the_rate_has_no_jump(changes: dict[str, object]) -> None:
    """From one episode to the next it changes by no more than the steepest slope of a phase's cosine."""
    config = BRIEF.with_values(changes)
    training, phases = config.training, config.phases
    rates = [annealed_factor(episode, training, phases) for episode in range(training.episodes + 20)]
    borders = [0, phases.warmup_until, phases.transition_until, training.episodes]
    shortest = min((end - begin for begin, end in pairwise(borders) if end > begin), default=1)
    span = max(phases.of(phase).learning_rate_factor for phase in Phase)
    assert max(abs(after - before) for before, after in pairwise(rates)) <= span * math.pi / 2 / shortest
    assert rates[0] == phases.of(phase_at(0, phases)).learning_rate_factor and min(rates) > 0
    if training.episodes > phases.transition_until:  # games that were still played when the last episode ended
        floor = phases.finetune.learning_rate_factor * training.cosine_floor
        assert rates[training.episodes :] == pytest.approx([floor] * 20)


def test_a_run_that_ends_earlier_has_the_rates_of_the_longer_one() -> None:
    short = BRIEF.with_values({"training.episodes": 40}).training
    for episode in range(41):
        assert annealed_factor(episode, short, BRIEF.phases) == annealed_factor(episode, BRIEF.training, BRIEF.phases)


def test_annealed_the_rate_is_that_of_the_episode_whatever_phase_the_samples_are_of() -> None:
    """Samples of the phase before come in for some updates; the rate does not wait for them, and so does not jump."""
    training, phases = BRIEF.training, BRIEF.phases
    late = [learning_rate_at(10_000, 1050, phase, training, phases) for phase in Phase]
    assert len(set(late)) == 1


def test_schedule_scales_to_a_shorter_budget() -> None:
    short = BRIEF.with_values(
        {"phases.warmup_until": 10, "phases.transition_until": 30, "training.episodes": 50, "training.cosine": False}
    )
    assert [phase_at(episode, short.phases) for episode in (9, 10, 29, 30)] == [0, 1, 1, 2]
    assert temperature_at(20, short.phases) == pytest.approx(0.75)


def test_empty_phases_are_possible() -> None:
    phases = BRIEF.with_values({"phases.warmup_until": 0, "phases.transition_until": 0}).phases
    assert phase_at(0, phases) == Phase.FINETUNE and temperature_at(0, phases) == 0.5
