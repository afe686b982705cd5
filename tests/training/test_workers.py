"""Workers: games and minibatches are divided; the numbers are the same wherever they run; none outlives its owner."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fallbacks.ladder import BUILT_IN
from pipeline.attempt.file import WarmStart
from pipeline.config import ExperimentConfig
from pipeline.training.losses import total_loss
from pipeline.training.trainer import Trainer, choose_device
from pipeline.training.worker import BatchStatistics
from tests.conftest import collect_all, small_config

CLOCK = ("time/", "steps_per_second", "memory_mb")


def trained(config: ExperimentConfig, folder: Path, start: WarmStart | None = None) -> tuple[dict[str, Any], list[Any]]:
    """The weights and all reported metrics but the timings of a whole run."""
    reported: list[Any] = []

    def report(metrics: dict[str, float], step: int) -> None:
        reported.append((step, {key: value for key, value in metrics.items() if not key.startswith(CLOCK)}))

    trainer = Trainer(config, folder, report)
    assert trainer.workers.parallel == (config.training.parallel and config.training.workers > 1)
    if start is not None:
        trainer.start_from(start)
    trainer.train()
    weights = {name: tensor.clone() for name, tensor in trainer.policy.state_dict().items()}
    trainer.close()
    return weights, reported


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("rung", ["v3", "v2_router_gat"])
def test_workers_beside_and_one_after_another_are_the_same_run(rung: str, tmp_path: Path) -> None:
    """They are equal bit for bit, and so is a run that is interrupted and resumed in processes."""
    base = BUILT_IN[rung].transform(small_config(training__workers=2))
    serial, told = trained(base.with_values({"training.parallel": False}), tmp_path / "serial")
    beside, told_beside = trained(base, tmp_path / "beside")
    assert told == told_beside
    assert all(torch.equal(serial[name], beside[name]) for name in serial)

    first = min(path for path in (tmp_path / "serial" / "checkpoints").glob("*.pt") if path.stem.isdigit())
    start = WarmStart(checkpoint=str(first), run_id="x", episode=0, exact=True)
    resumed, told_later = trained(base, tmp_path / "resumed", start)
    assert told_later == told[int(first.stem) :] and told_later
    assert all(torch.equal(serial[name], resumed[name]) for name in serial)


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_a_gpu_where_it_pays(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    chosen = {size: choose_device(small_config(policy__hidden_size=size)).type for size in (64, 256, 512)}
    assert chosen == {64: "cpu", 256: "cpu", 512: "cuda" if there else "cpu"}
    assert choose_device(small_config(policy__hidden_size=512, training__device="cpu")).type == "cpu"
    if there:
        assert choose_device(small_config(training__device="cuda")).type == "cuda"
    else:
        with pytest.raises(RuntimeError, match=r"training\.device"):
            choose_device(small_config(training__device="cuda"))


def test_the_average_gradient_is_that_of_the_whole_minibatch(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    """The terms on the load, which are no mean over samples, are made large."""
    changes = {"training.workers": 2, "training.parallel": False, "training.load_balance_coef": 3.0}
    trainer = Trainer(rung_config.with_values(changes), tmp_path, lambda metrics, step: None)
    with torch.no_grad():
        for name, parameter in trainer.policy.named_parameters():
            if name.startswith("router.out"):
                parameter.mul_(30)
    workers = collect_all(trainer)
    trainer.workers.call("shuffle")
    parts = trainer.workers.call("forward", 0)
    trainer.workers.call("backward", BatchStatistics.join(parts))
    trainer.workers.average_gradient()
    divided = [each.grad.clone() for each in trainer.policy.parameters() if each.grad is not None]

    batches = [worker._batch for worker in workers]
    outputs = [worker.recompute(batch) for worker, batch in zip(workers, batches, strict=True)]
    whole = outputs[0][0]
    for field in ("logits", "value", "alpha", "soft_alpha", "weights", "router_logits", "expert_logits"):
        setattr(whole, field, torch.cat([getattr(output, field) for output, _ in outputs]))
    log_prob = torch.cat([each for _, each in outputs])
    old, advantage, returns = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("log_prob", "advantage", "returns")
    )
    advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
    loss = total_loss(whole, log_prob, old, advantage, returns, trainer.config.training)
    expected = torch.autograd.grad(loss.total, workers[0].trained, materialize_grads=True)
    assert len(log_prob) == min(trainer.config.training.batch_size, 64)
    for ours, theirs in zip(divided, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-4)


def test_games_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    first = []
    for count in (1, 2, 4):
        config = small_config(training__workers=count, training__parallel=False)
        trainer = Trainer(config, tmp_path, lambda metrics, step: None)
        games = [worker.collector._observation["glyphs"].copy() for worker in trainer.workers.here]
        first.append(np.concatenate(games))
    assert (first[0] == first[1]).all() and (first[0] == first[2]).all()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_worker_that_dies_is_a_clear_error(tmp_path: Path) -> None:
    trainer = Trainer(small_config(training__workers=2), tmp_path, lambda metrics, step: None)
    process = trainer.workers._beside[0]._process
    os.kill(process.pid or 0, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="worker 1 is gone, exit code -9"):
        trainer.train()
    trainer.close()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_an_error_in_a_worker_is_told_with_its_traceback(tmp_path: Path) -> None:
    trainer = Trainer(small_config(training__workers=2), tmp_path, lambda metrics, step: None)
    trainer.workers._beside[0].ask("shuffle", ())  # before anything was collected
    with pytest.raises(AttributeError) as caught:
        trainer.workers._beside[0].answer()
    assert "in shuffle" in caught.value.__notes__[0]
    process = trainer.workers._beside[0]._process
    trainer.close()
    assert process.exitcode == 0
