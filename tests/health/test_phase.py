"""Phases have one number, one key and one label wherever they are named."""

from __future__ import annotations

import pytest

from pipeline.config import ExperimentConfig
from pipeline.health.phase import Phase


def test_keys_are_those_of_the_configuration() -> None:
    phases = ExperimentConfig().phases
    for phase in Phase:
        assert phases.of(phase) is getattr(phases, phase.key)


def test_labels_are_for_people() -> None:
    assert [phase.label for phase in Phase] == ["warm-up", "transition", "fine-tune"]


@pytest.mark.parametrize(
    ("value", "phase"),
    [(0.0, Phase.WARMUP), (2.0, Phase.FINETUNE), (3.0, None), (-1.0, None), (float("nan"), None), (None, None)],
)
def test_a_logged_number_names_its_phase(value: float | None, phase: Phase | None) -> None:
    assert Phase.logged(value) is phase
