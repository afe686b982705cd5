"""A recorded policy is the policy: at every rung, on real NetHack, whatever happens to the weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pipeline.config import ExperimentConfig
from pipeline.policy.interface import PolicyOutput, Routing
from pipeline.policy.traced import Traced
from pipeline.training.rollout import Samples
from pipeline.training.trainer import Trainer
from tests.conftest import collect, small_config


def differences(one: PolicyOutput, other: PolicyOutput) -> list[str]:
    """The fields that are not the same bit for bit."""
    found = []
    for field in dataclasses.fields(PolicyOutput):
        a, b = getattr(one, field.name), getattr(other, field.name)
        pairs = [(a[key], b[key]) for key in a] if isinstance(a, dict) else [(a, b)]
        same = (not isinstance(a, dict) or a.keys() == b.keys()) and all(x is y or torch.equal(x, y) for x, y in pairs)
        found += [] if same else [field.name]
    return found


def played(config: ExperimentConfig, folder: Path) -> tuple[Trainer, Samples]:
    trainer = Trainer(config, folder, lambda metrics, step: None)
    return trainer, collect(trainer)[0].samples


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")  # a branch that depends on a value
def test_a_recording_is_the_policy_bit_for_bit(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    trainer, samples = played(rung_config, tmp_path)
    traced = Traced(trainer.policy)
    torch.manual_seed(0)
    for sparse in (torch.zeros(8, dtype=torch.bool), torch.arange(8) % 2 == 0, torch.ones(8, dtype=torch.bool)):
        for start in (0, 8):
            some = samples[start : start + 8]
            routing = Routing(sparse, torch.linspace(0.5, 1.0, 8))
            noise = trainer.policy.draw_noise(8, torch.default_generator, torch.device("cpu"))
            with torch.inference_mode():
                expected = trainer.policy(some.obs, routing, noise)
                assert not differences(traced(some.obs, routing, noise), expected)
        with torch.no_grad():
            for parameter in trainer.policy.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)  # as an optimiser's step does
    few = samples[:3]
    assert not differences(traced(few.obs, few.routing, few.noise), trainer.policy(few.obs, few.routing, few.noise)), (
        "another number of samples, and with gradients"
    )


def test_each_way_is_recorded_once_and_then_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, samples = played(small_config(), tmp_path)
    calls, forward = 0, trainer.policy.forward

    def counted(*arguments: object) -> PolicyOutput:
        nonlocal calls
        calls += 1
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.policy, "forward", counted)
    traced, batch = Traced(trainer.policy), samples[:8]
    for _ in range(5):
        traced(batch.obs, batch.routing, batch.noise)
    assert calls == 1


def test_where_torch_cannot_record_it_is_the_policy_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, samples = played(small_config(), tmp_path)
    monkeypatch.delattr(torch.jit, "trace")
    batch, traced = samples[:8], Traced(trainer.policy)
    with torch.inference_mode():
        for _ in range(2):
            expected = trainer.policy(batch.obs, batch.routing, batch.noise)
            assert not differences(traced(batch.obs, batch.routing, batch.noise), expected)
