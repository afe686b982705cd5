"""The brief's three phases as pure functions of the episode: routing, temperature, learning rate."""

from __future__ import annotations

import math

from pipeline.config import PhasesSection, TrainingSection
from pipeline.health.phase import Phase


def phase_at(episode: int, phases: PhasesSection) -> Phase:
    """The phase in which an episode is played that begins after so many finished ones."""
    if episode < phases.warmup_until:
        return Phase.WARMUP
    return Phase.TRANSITION if episode < phases.transition_until else Phase.FINETUNE


def temperature_at(episode: int, phases: PhasesSection) -> float:
    """The temperature: `temperature_start` in warm-up, then linear in the episode to `temperature_end`.

    A phase whose routing is softmax has temperature 1: only sparsemax is annealed.
    """
    phase = phase_at(episode, phases)
    if phases.of(phase).routing == "softmax":
        return 1.0
    if phase == Phase.WARMUP:
        return phases.temperature_start
    if phase == Phase.FINETUNE:
        return phases.temperature_end
    progress = (episode - phases.warmup_until) / (phases.transition_until - phases.warmup_until)
    return phases.temperature_start + progress * (phases.temperature_end - phases.temperature_start)


def learning_rate_at(
    optimiser_step: int, episode: int, phase: int, training: TrainingSection, phases: PhasesSection
) -> float:
    """The learning rate: base × the phase's factor, annealed to that of the next phase × linear warm-up.

    Args:
        optimiser_step: number of optimiser steps so far, for the warm-up.
        episode: number of finished episodes, for the annealing.
        phase: phase of the update's samples, for the rate without annealing: it is then that of the phase.
    """
    warmup = min(1.0, (optimiser_step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    factor = annealed_factor(episode, training, phases) if training.cosine else phases.of(phase).learning_rate_factor
    return training.learning_rate * factor * warmup


def annealed_factor(episode: int, training: TrainingSection, phases: PhasesSection) -> float:
    """The factor of the learning rate: in each phase from its own to that with which the next one begins.

    The curve is that of `CosineAnnealingLR` (Loshchilov & Hutter 2017, eq. 5), over the episodes of the phase. The last
    phase ends at `cosine_floor` times its factor. So the rate has no jump, and each phase begins with its own.
    A run that ends earlier is the beginning of the longer one.
    """
    phase = phase_at(episode, phases)
    borders = (0, phases.warmup_until, phases.transition_until, training.episodes)
    begin, end = borders[phase : phase + 2]
    start = phases.of(phase).learning_rate_factor
    if phase == Phase.FINETUNE:
        goal = training.cosine_floor * start
    else:
        goal = phases.of(phase_at(end, phases)).learning_rate_factor  # an empty transition is passed over
    progress = min(1.0, (episode - begin) / (end - begin)) if end > begin else 0.0
    return goal + (start - goal) * (1 + math.cos(math.pi * progress)) / 2
