"""On real NetHack, at every rung, the update recomputes the policy that acted, and trains what it should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fallbacks.ladder import BUILT_IN
from pipeline.config import ExperimentConfig
from pipeline.policy.interface import LOGIT_BOUND, MASKED
from pipeline.training.losses import total_loss
from pipeline.training.trainer import Trainer
from pipeline.training.worker import Worker
from tests.conftest import collect, small_config, update

PHASES = {"warmup": 0, "transition": 5, "finetune": 9}


def in_phase(config: ExperimentConfig, phase: str, folder: Path) -> tuple[Trainer, Worker]:
    """A trainer after two updates, and its worker with a rollout in a phase that it has not been trained on yet."""
    trainer = Trainer(config, folder, lambda metrics, step: None)
    trainer.last_good.keep()
    for _ in range(2):
        update(trainer)
    return trainer, begin(trainer, PHASES[phase])


def begin(trainer: Trainer, episode: int) -> Worker:
    trainer.finished = episode
    trainer.workers.call("count_from", episode)
    return collect(trainer)[0]


@pytest.mark.parametrize("phase", PHASES)
def test_first_minibatch_ratio_is_one(rung_config: ExperimentConfig, phase: str, tmp_path: Path) -> None:
    _, worker = in_phase(rung_config, phase, tmp_path)
    for index in torch.randperm(len(worker.samples)).split(32):
        batch = worker.samples[index]
        _, log_prob = worker.recompute(batch)
        assert ((log_prob - batch.log_prob).exp() - 1).abs().max() < 1e-5


@pytest.mark.parametrize("phase", PHASES)
def test_gradients_reach_what_trains_and_nothing_else(
    rung_config: ExperimentConfig, phase: str, tmp_path: Path
) -> None:
    trainer, worker = in_phase(rung_config, phase, tmp_path)
    samples = worker.samples
    output, log_prob = worker.recompute(samples)
    trainer.policy.zero_grad(set_to_none=True)
    losses = total_loss(output, log_prob, samples.log_prob, samples.advantage, samples.returns, rung_config.training)
    losses.total.backward()
    frozen = rung_config.policy.gat_frozen or rung_config.policy.kind == "v2_gat"
    for name, parameter in trainer.policy.named_parameters():
        if frozen and name.startswith("gat."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_update_moves_what_trains_and_nothing_else(rung_config: ExperimentConfig, tmp_path: Path) -> None:
    trainer, _ = in_phase(rung_config, "transition", tmp_path)
    before = {name: parameter.clone() for name, parameter in trainer.policy.named_parameters()}
    trainer.last_good.keep()
    trainer.ppo.update(5, 1, trainer.last_good)
    for name, parameter in trainer.policy.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def output_of(config: ExperimentConfig, tmp_path: Path):  # type: ignore[no-untyped-def]
    trainer = Trainer(config, tmp_path, lambda metrics, step: None)
    with torch.no_grad():
        trainer.policy.router.out.weight.mul_(40)  # large logits, so that α is not uniform
    worker = begin(trainer, 9)
    return trainer, worker.recompute(worker.samples)[0]


def test_each_rung_computes_something_else_than_v3(tmp_path: Path) -> None:
    """Compared in the fine-tune phase: support of α, number of experts, kind of router, and what has gradients."""
    base = small_config()
    made = {name: output_of(rung.transform(base), tmp_path) for name, rung in BUILT_IN.items()}
    support = {name: float((output.alpha > 0).sum(-1).float().mean()) for name, (_, output) in made.items()}
    assert support["v3"] < 3.9 and support["softmax_only"] == 4.0
    assert made["two_experts"][1].expert_logits.shape[1] == 2 and made["v3"][1].expert_logits.shape[1] == 4
    drawn = made["v2_router_gat"][1]
    assert set(drawn.weights.detach().round(decimals=4).unique().tolist()) == {0.0, 1.0}
    assert drawn.h_logic is not None and "choice" in drawn.record
    trained = {
        name: any(parameter.requires_grad for parameter in trainer.policy.gat.parameters())
        for name, (trainer, _) in made.items()
    }
    assert trained == {
        "v3": True,
        "freeze_gat": False,
        "softmax_only": True,
        "two_experts": True,
        "v2_router_gat": False,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
@pytest.mark.parametrize("made", ["router_logits", "expert_logits", "logits"])
def test_logits_are_bounded_wherever_they_are_made(
    made: str, value: float, rung_config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits over the experts, over the actions of each expert, and mixed; each is tried alone."""
    trainer = Trainer(rung_config, tmp_path, lambda metrics, step: None)
    worker, policy = begin(trainer, 9), trainer.policy
    with torch.no_grad():
        if made == "router_logits":
            policy.router.out.weight.fill_(value)
        elif made == "expert_logits":
            policy.experts.weight_out.fill_(value)
        else:
            weigh = policy._weigh
            monkeypatch.setattr(
                policy,
                "_weigh",
                lambda *arguments: (found := weigh(*arguments))._replace(weights=found.weights * value),
            )
        output, _ = worker.recompute(worker.samples)
    for name in {made, "logits"}:
        logits = getattr(output, name)
        logits = logits[logits > MASKED]
        assert len(logits) and logits.isfinite().all() and logits.abs().max() <= LOGIT_BOUND, name
    assert output.logits.softmax(-1).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_logits_of_the_plain_policy_are_bounded(value: float, tmp_path: Path) -> None:
    trainer = Trainer(small_config(policy__kind="ppo"), tmp_path, lambda metrics, step: None)
    worker = begin(trainer, 9)
    with torch.no_grad():
        trainer.policy.actor.out.weight.fill_(value)
        logits = worker.recompute(worker.samples)[0].logits
    logits = logits[logits > MASKED]
    assert len(logits) and logits.isfinite().all() and logits.abs().max() <= LOGIT_BOUND


def test_v2_without_graph_has_no_graph(tmp_path: Path) -> None:
    trainer, output = output_of(small_config(policy__kind="v2"), tmp_path)
    assert trainer.policy.gat is None and output.h_logic is None


def test_frozen_features_are_computed_once_per_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, _ = in_phase(small_config(policy__gat_frozen=True), "warmup", tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("the frozen encoder was asked again")

    monkeypatch.setattr(trainer.policy.gat, "forward", never)
    trainer.last_good.keep()
    trainer.ppo.update(0, 0, trainer.last_good)


@pytest.mark.parametrize("size", [5, 0])
def test_the_shared_expert_has_weight_1(size: int, tmp_path: Path) -> None:
    """The policy is the weighted sum of the routed experts' logits, plus the shared expert's where there is one."""
    trainer, output = output_of(small_config(policy__shared_size=size), tmp_path)
    worker = begin(trainer, 9)
    with torch.no_grad():
        state, _ = trainer.policy._state(worker.samples.obs, worker.samples.noise)
        output, _ = worker.recompute(worker.samples)
        routed = (output.alpha.unsqueeze(-1) * output.expert_logits).sum(1)
        rest = (output.logits - routed) * worker.samples.obs["action_mask"]
    assert (trainer.policy.shared is None) == (size == 0)
    expected = torch.zeros_like(rest) if size == 0 else trainer.policy.shared(state)
    expected = expected * worker.samples.obs["action_mask"]
    torch.testing.assert_close(rest, expected, atol=1e-5, rtol=1e-4)
