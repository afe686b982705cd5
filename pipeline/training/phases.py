"""The brief's three phases as pure functions of the episode: routing, temperature, learning rate."""

from __future__ import annotations

import math

from pipeline.config import Phase, PhasesSection, TrainingSection

WARMUP, TRANSITION, FINETUNE = 0, 1, 2


def phase_at(episode: int, phases: PhasesSection) -> int:
    """The phase after `episode` finished episodes: 0 warm-up, 1 transition, 2 fine-tune."""
    if episode < phases.warmup_until:
        return WARMUP
    return TRANSITION if episode < phases.transition_until else FINETUNE


def phase_settings(phase: int, phases: PhasesSection) -> Phase:
    """Routing and learning-rate factor of a phase."""
    return (phases.warmup, phases.transition, phases.finetune)[phase]


def temperature_at(episode: int, phases: PhasesSection) -> float:
    """The router's temperature after `episode` finished episodes.

    It is `temperature_start` in warm-up, changes linearly in the episode during the transition, and stays at
    `temperature_end`. In a phase whose routing is softmax it is 1, because only sparsemax is annealed.
    """
    phase = phase_at(episode, phases)
    if phase_settings(phase, phases).routing == "softmax":
        return 1.0
    if phase == WARMUP:
        return phases.temperature_start
    if phase == FINETUNE:
        return phases.temperature_end
    progress = (episode - phases.warmup_until) / (phases.transition_until - phases.warmup_until)
    return phases.temperature_start + progress * (phases.temperature_end - phases.temperature_start)


def learning_rate_at(
    optimiser_step: int, episode: int, phase: int, training: TrainingSection, phases: PhasesSection
) -> float:
    """The learning rate: base rate × phase's factor × linear warm-up in optimiser steps × cosine annealing in episodes.

    It is a product, so that no factor overwrites another. The cosine is that of `CosineAnnealingLR` (Loshchilov &
    Hutter 2017, https://arxiv.org/abs/1608.03983, eq. 5, without restarts), from 1 to `cosine_floor` over the run's
    episodes.
    """
    warmup = min(1.0, (optimiser_step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    cosine = 1.0
    if training.cosine:
        progress = min(1.0, episode / training.episodes)
        cosine = training.cosine_floor + (1 - training.cosine_floor) * (1 + math.cos(math.pi * progress)) / 2
    return training.learning_rate * phase_settings(phase, phases).learning_rate_factor * warmup * cosine
