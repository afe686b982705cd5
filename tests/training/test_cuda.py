"""Training on a GPU: the same run as on the CPU up to float32, repeatable, with checkpoints that work on both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.attempt.file import WarmStart
from pipeline.config import ExperimentConfig
from pipeline.policy.traced import Traced
from pipeline.training.__main__ import _exit_code
from pipeline.training.player import Player, observation_spec
from pipeline.training.trainer import Trainer
from tests.conftest import small_config
from tests.training.test_checkpoint import Metrics, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def on(device: str, config: ExperimentConfig, folder: Path) -> tuple[Trainer, Metrics]:
    metrics = Metrics()
    return Trainer(config.with_values({"training.device": device}), folder, metrics), metrics


def test_an_update_on_the_gpu_is_that_on_the_cpu(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    reported = []
    for device in ("cpu", "cuda"):
        trainer, metrics = on(device, rung_config, tmp_path / device)
        trainer.train(1)
        (numbers, _), *_ = metrics.learnt()
        reported.append({name: value for name, value in numbers.items() if name != "first_ratio_deviation"})
    assert reported[1] == pytest.approx(reported[0], rel=1e-3, abs=1e-4)


def test_the_policy_that_acted_is_recomputed(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    trainer, metrics = on("cuda", rung_config, tmp_path)
    trainer.train(4)
    assert len(metrics) == 4
    assert all(numbers["first_ratio_deviation"] < 1e-4 for numbers, _ in metrics)


def test_a_run_is_repeated_and_resumed_bit_for_bit(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    (one, first), (other, second) = on("cuda", rung_config, tmp_path / "1"), on("cuda", rung_config, tmp_path / "2")
    one.train(), other.train()
    assert first.learnt() == second.learnt()
    checkpoint = min((tmp_path / "1" / "checkpoints").glob("0*.pt"))
    resumed, after = on("cuda", rung_config, tmp_path / "3")
    resumed.start_from(WarmStart(checkpoint=str(checkpoint), run_id="x", episode=0, exact=True))
    resumed.train()
    assert after.learnt() == first.learnt()[int(checkpoint.stem) :]
    for each in (other, resumed):
        assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(each).values(), strict=True))


def test_acting_is_recorded(rung_config: ExperimentConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer, _ = on("cuda", rung_config, tmp_path)
    traced = Traced(trainer.policy, calls=0)
    trainer.workers.here[0].collector._act = traced
    trainer.train(2)
    assert traced._recordings and "cannot be recorded" not in caplog.text


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_checkpoint_goes_on_elsewhere(first: str, then: str, rung_config: ExperimentConfig, tmp_path: Path) -> None:
    """Another attempt may run on another machine; published models play on the CPU."""
    trainer, _ = on(first, rung_config, tmp_path / "1")
    trainer.train(2)
    checkpoint = max((tmp_path / "1" / "checkpoints").glob("0*.pt"))
    again, metrics = on(then, rung_config, tmp_path / "2")
    again.start_from(WarmStart(checkpoint=str(checkpoint), run_id="x", episode=0))
    for name, tensor in weights(trainer).items():
        assert torch.equal(weights(again)[name].cpu(), tensor.cpu()), name
    again.train(1)
    assert len(metrics) == 1
    player = Player.from_checkpoint(checkpoint, rung_config)
    observation, _ = player.new_game(seed=1).reset()
    assert player.act(observation) < observation_spec(rung_config.environment).actions


def test_a_nan_gradient_is_rolled_back(tmp_path: Path) -> None:
    trainer, metrics = on("cuda", small_config(), tmp_path)
    trainer.train(1)
    before = weights(trainer)
    trainer.ppo.poison = 100
    trainer.train(1)
    assert metrics[-1][0]["rollbacks"] == 1
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(trainer).values(), strict=True))


def test_a_full_gpu_is_told_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert _exit_code(caught.value) == 12
