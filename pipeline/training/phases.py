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
    """The learning rate: base × the phase's factor × linear warm-up in optimiser steps × cosine annealing in episodes.

    A product, so none of the three overwrites another. The cosine is that of `CosineAnnealingLR`
    (Loshchilov & Hutter 2017, eq. 5, without restarts), from 1 to `cosine_floor` over the run's episodes.
    """
    warmup = min(1.0, (optimiser_step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    cosine = 1.0
    if training.cosine:
        progress = min(1.0, episode / training.episodes)
        cosine = training.cosine_floor + (1 - training.cosine_floor) * (1 + math.cos(math.pi * progress)) / 2
    return training.learning_rate * phases.of(phase).learning_rate_factor * warmup * cosine
