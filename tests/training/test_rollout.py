"""What the collector hands to the update: returns, phases by game, learning rates, clipped gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.attempt.file import WarmStart
from pipeline.policy.interface import MASKED
from pipeline.training.losses import total_loss
from pipeline.training.numerics import RewardNormaliser
from pipeline.training.phases import learning_rate_at
from pipeline.training.trainer import Trainer
from tests.conftest import collect, small_config, update


def trainer(folder: Path, **changes: object) -> tuple[Trainer, list[dict[str, float]]]:
    reported: list[dict[str, float]] = []
    made = Trainer(small_config(**changes), folder, lambda metrics, step: reported.append(metrics))
    return made, reported


def test_truncation_bootstraps_from_the_game_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a critic that reads the game's own clock, and λ = 0, advantages can be computed by hand.

    Every game is cut after 8 steps. What follows the cut is valued at the clock of the game that ended (about 9), and
    not at that of the next game (1).
    """
    made, _ = trainer(tmp_path, environment__max_episode_steps=8, training__gae_lambda=0.0, training__rollout_steps=16)
    clock: list[np.ndarray] = []
    collector = made.workers.here[0].collector
    tensors = collector._tensors

    def with_clock(observation: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        obs = tensors(observation)
        obs["stats"][:, 0] = torch.from_numpy(observation["blstats"][:, 20].astype(np.float32))
        return obs

    def critic(obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return obs["stats"][:, 0].clone()

    step = collector.games.step

    def recorded(actions: np.ndarray):  # type: ignore[no-untyped-def]
        result = step(actions)
        final = result.final_observation or result.observation
        clock.append(final["blstats"][:, 20].copy())
        return result

    forward = made.policy.forward

    def valued(obs, routing, noise):  # type: ignore[no-untyped-def]
        output = forward(obs, routing, noise)
        output.value = critic(obs)
        return output

    monkeypatch.setattr(collector, "_tensors", with_clock)
    monkeypatch.setattr(collector.games, "step", recorded)
    monkeypatch.setattr(made.policy, "value", critic)
    monkeypatch.setattr(made.policy, "forward", valued)
    monkeypatch.setattr(RewardNormaliser, "__call__", lambda self, reward, done: np.zeros(reward.shape, np.float32))
    worker, played = collect(made)
    value = played.value
    advantage = worker.samples.advantage.view(16, 4).numpy()
    following = np.stack(clock).astype(np.float32)
    assert (value[8] <= 1).all() and (following[7] > 2).sum() >= 3  # the next game's beginning, and the end of this one
    assert np.allclose(advantage, 0.995 * following - value, atol=1e-5)
    assert np.allclose(worker.samples.returns.view(16, 4), advantage + value)


def test_a_game_keeps_the_phase_in_which_it_began(tmp_path: Path) -> None:
    """Four games of 40 steps at a time: 4 in warm-up, 4 in transition, then fine-tune; routing is each sample's own."""
    made, _ = trainer(tmp_path, training__rollout_steps=125, environment__max_episode_steps=40)
    worker, played = collect(made)
    phase, sparse, temperature = played.phase, played.sparse, played.temperature
    assert (worker.samples.routing.sparse.view(125, 4).numpy() == sparse).all()
    assert (worker.samples.routing.temperature.view(125, 4).numpy() == temperature).all()
    assert (phase[0] == 0).all() and (phase[-1] == 2).all() and (np.diff(phase, axis=0) >= 0).all()
    assert (sparse == (phase > 0)).all()
    assert (temperature[phase == 0] == 1.0).all() and (temperature[phase == 2] == 0.5).all()
    assert set(temperature[phase == 1].tolist()) <= {1.0, 0.875, 0.75, 0.625}
    # A game changes its phase only when it begins anew. No hero dies here, so that is at a cut, every 40 steps.
    changes = np.argwhere(np.diff(phase, axis=0))
    assert len(changes) >= 4
    began = np.zeros((125, 4), dtype=bool)
    began[[40, 80, 120]] = True
    assert not any(episode.died for episode in played.episodes)
    assert all(began[t + 1, game] for t, game in changes)


def test_the_optimiser_has_the_rate_of_the_schedule(tmp_path: Path) -> None:
    made, _ = trainer(
        tmp_path,
        training__router_learning_rate_factor=3.0,
        training__warmup_steps=0,
        training__cosine=False,
    )
    made.last_good.keep()
    for phase, rate in ((0, 1e-4), (1, 5e-5), (2, 1e-5)):
        learnt = update(made, phase)
        assert learnt["learning_rate"] == pytest.approx(rate)
        names = {id(parameter): name for name, parameter in made.policy.named_parameters()}
        for group in made.ppo.optimiser.param_groups:
            router = names[id(group["params"][0])].startswith("router.")
            assert group["lr"] == pytest.approx(rate * (3.0 if router else 1.0))


def test_each_phase_logs_its_rate(tmp_path: Path) -> None:
    made, reported = trainer(tmp_path, training__warmup_steps=0, training__cosine=False, training__episodes=16)
    made.train()
    rates = {0: 1e-4, 1: 5e-5, 2: 1e-5}
    assert {metrics["phase"] for metrics in reported} == {0.0, 1.0, 2.0}
    for metrics in reported:
        assert metrics["learning_rate"] == pytest.approx(rates[int(metrics["phase"])])


PARTS = {"gat": 0.5, "router": 3.0, "rest": 1.0}


def rates_of(made: Trainer) -> dict[str, float]:
    """The optimiser's rates by part of the policy."""
    names = {id(parameter): name.split(".")[0] for name, parameter in made.policy.named_parameters()}
    parts = {names[id(group["params"][0])]: group["lr"] for group in made.ppo.optimiser.param_groups}
    return {part if part in PARTS else "rest": rate for part, rate in parts.items()}


@pytest.mark.parametrize("steps", [10_000, 499])
def test_the_optimiser_has_the_briefs_rates_at_the_beginning_middle_and_end_of_each_phase(
    tmp_path: Path, steps: int
) -> None:
    """For router, GAT and the rest, times their own factors; the linear warm-up scales all alike."""
    made, _ = trainer(
        tmp_path,
        training__gat_learning_rate_factor=PARTS["gat"],
        training__router_learning_rate_factor=PARTS["router"],
        training__warmup_steps=1000,
        training__episodes=5000,
        phases__warmup_until=1000,
        phases__transition_until=3000,
    )
    made.last_good.keep()
    collect(made)
    for episode, phase, rate in (
        (0, 0, 1e-4), (500, 0, 7.5e-5), (999, 0, 5e-5),
        (1000, 1, 5e-5), (2000, 1, 3e-5), (2999, 1, 1e-5),
        (3000, 2, 1e-5), (4000, 2, 5.5e-6), (4999, 2, 1e-6),
    ):  # fmt: skip
        made.ppo.optimiser_steps = steps
        learnt = made.ppo.update(episode, phase, made.last_good)
        warm = min(1.0, made.ppo.optimiser_steps / 1000)
        assert learnt["learning_rate"] == pytest.approx(rate * warm, rel=1e-4)
        assert rates_of(made) == {part: pytest.approx(rate * warm * PARTS[part], rel=1e-4) for part in PARTS}


@pytest.mark.parametrize("exact", [True, False])
def test_a_start_from_a_checkpoint_goes_on_in_the_schedule(tmp_path: Path, exact: bool) -> None:
    """A resumed and a warm-started attempt: the next update has the rate of its episode."""
    made, _ = trainer(tmp_path / "first", training__episodes=16)
    made.train(3)
    made.save()
    checkpoint = str(next((tmp_path / "first" / "checkpoints").glob("*.pt")))
    again, reported = trainer(tmp_path / "second", training__episodes=16)
    again.start_from(WarmStart(checkpoint=checkpoint, run_id="x", episode=made.finished, exact=exact))
    assert made.finished == again.finished > 0 and again.ppo.optimiser_steps == made.ppo.optimiser_steps > 0
    again.train(1)
    training, phases = again.config.training, again.config.phases
    episode, phase = int(reported[-1]["episodes"]), int(reported[-1]["phase"])
    rate = learning_rate_at(again.ppo.optimiser_steps - 1, episode, phase, training, phases)
    assert reported[-1]["learning_rate"] == pytest.approx(rate)
    assert rates_of(again) == {part: pytest.approx(rate) for part in PARTS}


def test_gradients_are_clipped_before_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = trainer(tmp_path, training__max_grad_norm=0.01)
    norms: list[float] = []
    step = made.ppo.optimiser.step

    def measured() -> None:
        grads = [parameter.grad for parameter in made.policy.parameters() if parameter.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))
        step()

    monkeypatch.setattr(made.ppo.optimiser, "step", measured)
    made.last_good.keep()
    learnt = update(made)
    assert max(norms) <= 0.01 * 1.001 and learnt["gradient_norm"] > 0.01
    assert learnt["gradient_clipped_share"] == 1.0


def test_advantages_are_normalised_in_each_minibatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are normalised over the whole minibatch, whatever part of it a worker has."""
    made, _ = trainer(tmp_path, training__workers=2, training__parallel=False)
    seen: list[torch.Tensor] = []
    import pipeline.training.worker as module

    original = module.total_loss

    def watched(output, log_prob, old, advantage, *others, **named):  # type: ignore[no-untyped-def]
        seen.append(advantage)
        return original(output, log_prob, old, advantage, *others, **named)

    monkeypatch.setattr(module, "total_loss", watched)
    made.last_good.keep()
    update(made)
    for advantage in map(torch.cat, zip(seen[::2], seen[1::2], strict=True)):
        assert len(advantage) == 32
        assert advantage.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert advantage.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)


def test_best_checkpoint_is_replaced_only_by_a_better_one(tmp_path: Path) -> None:
    made, _ = trainer(tmp_path)
    best = []
    for score in (5.0, 9.0, 7.0):
        made.updates += 1
        made.scores.extend([score] * 4)
        made.save()
        best.append([path.stem for path in (tmp_path / "checkpoints").glob("best-*.pt")])
    assert best == [["best-00000001"], ["best-00000002"], ["best-00000002"]]


@pytest.mark.parametrize("window", [1000, 8], ids=["never full", "full"])
def test_the_best_score_is_of_a_full_window_or_of_all_games(tmp_path: Path, window: int) -> None:
    """The mean of the first few games may be high by luck, and is no best one."""
    made, reported = trainer(tmp_path, environment__max_episode_steps=8, training__score_window=window)
    made.train(4)
    newest = [each["score_window"] for each in reported]
    expected = newest if window == 1000 else list(np.maximum.accumulate(newest))
    assert len(made.scores) >= 8 and [each["best/score_window"] for each in reported] == expected


def test_by_default_the_policy_acts_and_learns_with_dropout(tmp_path: Path) -> None:
    """The masks that were drawn when it acted are in the samples, and decide the probabilities."""
    made, _ = trainer(tmp_path)
    worker, _ = collect(made)
    samples = worker.samples
    dropped = float((~samples.noise["dropout"]).float().mean())
    assert dropped == pytest.approx(made.config.policy.gat_dropout, abs=0.03)
    with torch.no_grad():
        output, log_prob = worker.recompute(samples)
        without = made.policy(samples.obs, samples.routing, {})
    assert torch.allclose(log_prob, samples.log_prob, atol=1e-5)
    assert not torch.allclose(output.logits, without.logits, atol=1e-5)


@pytest.mark.parametrize(("kind", "shared"), [("v3", 0), ("v3", 16), ("v2", 0), ("v2", 16), ("ppo", 0)])
def test_only_what_is_offered_is_played_and_learnt(kind: str, shared: int, tmp_path: Path) -> None:
    """A refused action has the probability 0, in acting and in the update, and its logit gets no gradient."""
    made, _ = trainer(tmp_path, policy__kind=kind, policy__shared_size=shared)
    worker, _ = collect(made)
    samples = worker.samples
    mask = samples.obs["action_mask"]
    assert (~mask).any(1).float().mean() > 0.5  # all is offered while the game asks
    assert mask.gather(1, samples.action.unsqueeze(1)).all()
    output, log_prob = worker.recompute(samples)
    assert torch.allclose(log_prob, samples.log_prob, atol=1e-5)
    assert (output.logits.softmax(-1)[~mask] == 0).all()
    assert ((output.expert_logits == MASKED) == ~mask.unsqueeze(1)).all()
    output.logits.retain_grad()
    loss = total_loss(
        output, log_prob, samples.log_prob, torch.randn(len(samples)), samples.returns, made.config.training
    ).total
    loss.backward()
    gradient = output.logits.grad
    assert gradient is not None and (gradient[mask] != 0).any() and (gradient[~mask] == 0).all()
    assert all(torch.isfinite(each.grad).all() for each in made.policy.parameters() if each.grad is not None)
