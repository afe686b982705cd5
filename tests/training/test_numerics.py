"""Training continues after a NaN anywhere; rewards are normalised; a rollback restores everything."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.losses import total_loss
from pipeline.training.numerics import LastGoodState, RewardNormaliser, all_finite, parameters_finite
from pipeline.training.ppo import clip_norm
from pipeline.training.trainer import Trainer
from tests.conftest import collect, small_config, update

NAN = float("nan")


def trainer(folder: Path, **changes: object) -> tuple[Trainer, list[dict[str, float]]]:
    reported: list[dict[str, float]] = []
    made = Trainer(small_config(**changes), folder, lambda metrics, step: reported.append(metrics))
    return made, reported


def test_all_finite_looks_everywhere() -> None:
    assert all_finite({"a": [torch.ones(2), 1.0, "x", np.ones(2)], "b": None, "c": torch.tensor([1])})
    for poisoned in (torch.tensor([NAN]), np.array([np.inf]), NAN):
        assert not all_finite({"a": [1, {"b": poisoned}]})


@pytest.mark.parametrize("length", [0.5, 1.0, 30.0, NAN])
def test_the_gradient_is_clipped_as_torch_clips_it(length: float) -> None:
    torch.manual_seed(0)
    flat = torch.randn(1000)
    flat *= length / flat.norm()
    parameters = [torch.nn.Parameter(torch.zeros(500)) for _ in range(2)]
    for parameter, part in zip(parameters, flat.clone().split(500), strict=True):
        parameter.grad = part
    expected = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    norm = clip_norm(flat, 1.0)
    assert norm == pytest.approx(float(expected), nan_ok=True)
    clipped = torch.cat([parameter.grad for parameter in parameters if parameter.grad is not None])
    assert torch.allclose(flat, clipped, equal_nan=True)


def test_nan_gradients_are_skipped_before_the_step(tmp_path: Path) -> None:
    made, _ = trainer(tmp_path)
    made.last_good.keep()
    made.ppo.poison = 2
    learnt = update(made)
    assert learnt["nonfinite_batches"] == 2 and learnt["rolled_back"] == 0
    assert learnt["optimiser_steps"] == 2  # of four minibatches
    assert all_finite(made.ppo.state()) and parameters_finite(made.policy)


@pytest.mark.parametrize("batch", range(4))
def test_nan_weight_at_any_minibatch_is_rolled_back(
    batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried in the first, middle and last minibatch of the first and the last epoch."""
    made, _ = trainer(tmp_path)
    made.last_good.keep()
    update(made)
    made.last_good.keep()
    good = copy.deepcopy(made._learning_state())
    collect(made)
    made.workers.here[0].generator.set_state(good["random"][0])
    original, count = made.ppo._minibatch, 0

    def poisoned(*arguments):  # type: ignore[no-untyped-def]
        nonlocal count
        result = original(*arguments)
        if count == batch:
            made.policy.critic.hidden.weight.data[0, 0] = NAN
        count += 1
        return result

    monkeypatch.setattr(made.ppo, "_minibatch", poisoned)
    learnt = made.ppo.update(0, 0, made.last_good)
    assert learnt["rolled_back"] == 1
    after = made._learning_state()
    assert all(torch.equal(after["policy"][name], good["policy"][name]) for name in good["policy"])
    for name, moments in good["ppo"]["moments"].items():
        assert all(torch.equal(after["ppo"]["moments"][name][key], moments[key]) for key in moments)
    assert after["ppo"]["optimiser_steps"] == good["ppo"]["optimiser_steps"]
    assert torch.equal(after["random"][0], good["random"][0])
    monkeypatch.undo()
    learnt = update(made)
    assert learnt["rolled_back"] == 0 and learnt["nonfinite_batches"] == 0


@pytest.mark.parametrize("epoch", range(3))
@pytest.mark.parametrize("place", ["observation", "logits", "loss", "gradient", "weight"])
def test_nan_at_any_place_in_any_epoch_leaves_training_able_to_go_on(
    place: str, epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NaN strikes in the second of three updates, in each of its three epochs; two workers."""
    made, reported = trainer(
        tmp_path, training__workers=2, training__parallel=False, training__ppo_epochs=3, training__episodes=10**6
    )
    minibatches = 2  # of each epoch
    worker = made.workers.here[1]
    count, struck = -1, 0

    def strikes() -> bool:
        return made.updates == 1 and count == epoch * minibatches

    forward, loss = worker.forward, total_loss

    def struck_forward(number: int):  # type: ignore[no-untyped-def]
        nonlocal count, struck
        count += made.updates == 1
        struck += strikes()
        if strikes():
            if place == "observation":
                worker._shuffled.obs["stats"][0] = NAN
            elif place == "weight":
                made.policy.experts.weight_in.data[0, 0, 0] = NAN
            elif place == "logits":
                with monkeypatch.context() as patch:
                    raw = torch.nn.Linear.forward
                    router = made.policy.router.out
                    patch.setattr(
                        torch.nn.Linear, "forward", lambda self, x: raw(self, x) + (NAN if self is router else 0.0)
                    )
                    return forward(number)
            elif place == "gradient":
                made.ppo.poison = 1
        return forward(number)

    def struck_loss(*arguments, **named):  # type: ignore[no-untyped-def]
        losses = loss(*arguments, **named)
        if place == "loss" and strikes():
            losses.total = losses.total * NAN
        return losses

    monkeypatch.setattr(worker, "forward", struck_forward)
    monkeypatch.setattr("pipeline.training.worker.total_loss", struck_loss)
    made.train(updates=2)
    assert struck == 1
    assert parameters_finite(made.policy) and all_finite(made._learning_state())
    assert (reported[1]["nonfinite_batches"] > 0) is (place != "logits")  # a NaN logit counts as 0: nothing is lost
    assert reported[1]["rollbacks"] == (place == "weight")
    before = {name: tensor.clone() for name, tensor in made.policy.state_dict().items()}
    made.train(updates=1)
    assert reported[2]["nonfinite_batches"] == 0 and parameters_finite(made.policy)
    assert all(not torch.equal(before[name], tensor) for name, tensor in made.policy.named_parameters())


def test_endless_nan_gradients_roll_back_and_training_ends_all_the_same(tmp_path: Path) -> None:
    made, reported = trainer(tmp_path, training__episodes=8)
    made.ppo.poison = 10**9
    assert made.train()
    assert reported[-1]["rollbacks"] == len(reported) and parameters_finite(made.policy)


def test_poisoned_observation_and_reward_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, reported = trainer(tmp_path, training__episodes=12)
    tensors, step = made.workers.here[0].collector._tensors, made.workers.here[0].collector.games.step
    calls = 0

    def poisoned_tensors(observation):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        obs = tensors(observation)
        if calls == 5:
            obs["stats"][0, 0] = NAN
        return obs

    def poisoned_step(actions):  # type: ignore[no-untyped-def]
        result = step(actions)
        if calls == 5:
            result.reward[1] = NAN
        return result

    monkeypatch.setattr(made.workers.here[0].collector, "_tensors", poisoned_tensors)
    monkeypatch.setattr(made.workers.here[0].collector.games, "step", poisoned_step)
    assert made.train()
    assert reported[0]["nonfinite_batches"] > 0 and reported[0]["nonfinite_rewards"] == 1
    assert reported[-1]["nonfinite_batches"] == 0
    assert parameters_finite(made.policy) and all_finite(made.normaliser.state())


def test_last_good_state_refuses_what_is_not_finite() -> None:
    state = {"x": 1.0}
    restored: list[dict[str, float]] = []
    last = LastGoodState(lambda: state, restored.append)
    with pytest.raises(FloatingPointError):
        last.roll_back()
    assert last.keep()
    state["x"] = NAN
    assert not last.keep()
    last.roll_back()
    assert restored == [{"x": 1.0}]


def test_rewards_are_divided_by_the_deviation_of_the_return_and_clipped() -> None:
    normalise = RewardNormaliser(num_envs=8, gamma=0.9, clip=10.0, centring=False)
    random, done = np.random.default_rng(0), np.zeros(8, dtype=bool)
    discounted, returns = np.zeros(8), []
    for _ in range(5):
        reward = random.normal(3, 2, (100, 8))
        for each in reward:
            discounted = 0.9 * discounted + each
            returns.append(discounted)
        scaled = normalise(reward, np.tile(done, (100, 1)))
    assert scaled == pytest.approx(reward / np.std(returns), rel=1e-2)
    assert normalise(np.full((1, 8), 1e9), done[None]).max() <= 10.0
    assert normalise(np.zeros((1, 8)), done[None]).tolist() == [[0.0] * 8]  # nothing is a penalty for being alive


def test_a_game_that_ended_starts_a_new_return() -> None:
    normalise = RewardNormaliser(num_envs=2, gamma=0.9, clip=10.0, centring=False)
    normalise(np.array([[5.0, 5.0], [1.0, 1.0]]), np.array([[True, False], [False, False]]))
    assert normalise.state()["discounted"] == pytest.approx([1.0, 0.9 * 5 + 1])


def test_centring_subtracts_the_mean_reward() -> None:
    normalise = RewardNormaliser(num_envs=4, gamma=0.0, clip=10.0, centring=True)
    for _ in range(300):
        scaled = normalise(np.array([[1.0, 2.0, 3.0, 4.0]]), np.zeros((1, 4), dtype=bool))
    assert scaled.mean() == pytest.approx(0.0, abs=0.01)


def test_normaliser_state_survives_a_round_trip() -> None:
    one = RewardNormaliser(2, 0.9, 10.0, False)
    for reward in (1.0, 2.0, 5.0):
        one(np.array([[reward, -reward]]), np.zeros((1, 2), dtype=bool))
    other = RewardNormaliser(2, 0.9, 10.0, False)
    other.restore(one.state())
    reward, done = np.array([[3.0, 1.0]]), np.array([[True, False]])
    assert (one(reward, done) == other(reward, done)).all()
