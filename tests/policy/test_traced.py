"""A recorded policy computes what the policy does, at every rung, on real NetHack, also after the weights change."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from fallbacks.ladder import BUILT_IN
from pipeline.config import ExperimentConfig
from pipeline.policy.interface import PolicyOutput, Routing
from pipeline.policy.traced import Traced
from pipeline.training.rollout import Samples
from pipeline.training.trainer import Trainer
from tests.conftest import collect, small_config, update

CONFIGS = {name: rung.transform(small_config()) for name, rung in BUILT_IN.items()} | {
    "no graph": small_config(policy__graph=False),
    "deep": small_config(policy__gat_layers=4, policy__gat_residual=False, policy__attention_temperature=3.0),
    "one expert": small_config(policy__experts=("general",)),
    "v2": small_config(policy__kind="v2"),
    "ppo": small_config(policy__kind="ppo"),
}


def differences(one: PolicyOutput, other: PolicyOutput) -> list[str]:
    """Names of the fields that are not the same bit for bit."""
    assert one.record.keys() == other.record.keys()
    pairs = {name: (value, other.record[name]) for name, value in one.record.items()}
    for field in dataclasses.fields(PolicyOutput):
        if field.name != "record":
            pairs[field.name] = getattr(one, field.name), getattr(other, field.name)
    return [name for name, (a, b) in pairs.items() if a is not b and not torch.equal(a, b)]


def played(config: ExperimentConfig, folder: Path) -> tuple[Trainer, Samples]:
    trainer = Trainer(config, folder, lambda metrics, step: None)
    return trainer, collect(trainer)[0].samples


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_recording_is_the_policy_bit_for_bit(config: ExperimentConfig, tmp_path: Path) -> None:
    trainer, samples = played(config, tmp_path)
    traced, known = Traced(trainer.policy, calls=0), set()
    torch.manual_seed(0)
    for sparse in (torch.zeros(8, dtype=torch.bool), torch.arange(8) % 2 == 0, torch.ones(8, dtype=torch.bool)):
        for start in (0, 8):
            some, routing = samples[start : start + 8], Routing(sparse, torch.rand(8) + 0.5)
            noise = trainer.policy.draw_noise(8, torch.default_generator, torch.device("cpu"))
            with torch.inference_mode():
                expected = trainer.policy(some.obs, routing, noise)
                with pytest.MonkeyPatch.context() as patch:
                    if routing.any_sparse in known:
                        patch.setattr(trainer.policy, "forward", None)  # so only the recording can answer
                    assert not differences(traced(some.obs, routing, noise), expected)
            known.add(routing.any_sparse)
        with torch.no_grad():
            for parameter in trainer.policy.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)  # as an optimiser's step does
                parameter.data = parameter.data.clone()
    few = samples[:3]  # another number of samples, with the draws of when they were played
    assert not differences(traced(few.obs, few.routing, few.noise), trainer.policy(few.obs, few.routing, few.noise))
    assert len(traced._recordings) == 3 and trainer.policy not in traced._recordings.values()


def count_passes(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A list that grows by one whenever the policy itself is called."""
    passes: list[None] = []
    forward = trainer.policy.forward

    def counted(*arguments: object) -> PolicyOutput:
        passes.append(None)
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer.policy, "forward", counted)
    return passes


def test_training_on_games_played_from_recordings_is_the_same(
    rung_config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, recorded = played(rung_config, tmp_path / "called")[0], played(rung_config, tmp_path / "recorded")[0]
    traced = Traced(recorded.policy, calls=0)
    monkeypatch.setattr(recorded.workers.here[0].collector, "_act", traced)
    all_passes, passes = (count_passes(trainer, monkeypatch) for trainer in (called, recorded))
    for _ in range(2):
        assert update(recorded) == update(called)
    replayed = 2 * rung_config.training.rollout_steps
    assert len(passes) == len(all_passes) - replayed + 2 * len(traced._recordings)  # each is recorded in two steps


def test_what_is_often_called_is_recorded_once_and_then_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, samples = played(small_config(), tmp_path)
    passes = count_passes(trainer, monkeypatch)
    traced, batch = Traced(trainer.policy, calls=3), samples[:8]
    for _ in range(8):
        traced(batch.obs, batch.routing, batch.noise)
    assert len(passes) == 3 + 2  # recorded in two steps


@pytest.mark.parametrize("why", ["no tracer", "a branch on a value", "a value that leaves torch"])
def test_what_cannot_be_recorded_is_called_itself(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, samples = played(small_config(), tmp_path)
    forward = trainer.policy.forward

    def branching(obs: dict[str, torch.Tensor], *others: object) -> PolicyOutput:
        output = forward(obs, *others)  # type: ignore[arg-type]
        if obs["stats"][0, 0] > 0:
            output.logits = output.logits + 1
        return output

    def leaving(obs: dict[str, torch.Tensor], *others: object) -> PolicyOutput:
        output = forward(obs, *others)  # type: ignore[arg-type]
        output.logits = output.logits + torch.tensor(obs["stats"][:, :1].tolist())
        return output

    if why == "no tracer":
        monkeypatch.delattr(torch.jit, "trace")
    else:
        monkeypatch.setattr(trainer.policy, "forward", branching if why == "a branch on a value" else leaving)
    batch, traced = samples[:8], Traced(trainer.policy, calls=0)
    caplog.set_level(logging.WARNING)
    for sign in (-1, 1):
        batch.obs["stats"] = batch.obs["stats"].abs() * sign
        expected = trainer.policy(batch.obs, batch.routing, batch.noise)
        assert not differences(traced(batch.obs, batch.routing, batch.noise), expected)
    assert caplog.text.count("cannot be recorded") == 1


def test_an_error_in_a_replay_is_told_as_the_policy_tells_it(tmp_path: Path) -> None:
    trainer, samples = played(small_config(), tmp_path)
    batch, traced = samples[:8], Traced(trainer.policy, calls=0)
    traced(batch.obs, batch.routing, batch.noise)
    batch.obs["crop"] = torch.full_like(batch.obs["crop"], 30000)  # no such glyph
    with pytest.raises(IndexError):
        traced(batch.obs, batch.routing, batch.noise)
