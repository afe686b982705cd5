"""Small trainings of many kinds, healthy and broken, whose histories look like those of other people's scripts.

Each kind is a function of a seed and of a fault. Most of them really train, in NumPy, in a second. Two are simulated
(`sparse_reward`, `curriculum`), as nothing so small shows what they show. `sb3` is Stable-Baselines3's PPO on CartPole.
A fault strikes at a share of the run that the seed draws, or from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import SupportsFloat

import numpy as np

from pipeline.health.history import History


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a run."""

    rate: float = 1.0
    """The learning rate is multiplied by this."""
    nan: bool = False
    """The weights become NaN."""
    reset: bool = False
    """The weights are lost, and learning stops."""
    frozen: bool = False
    """The learning rate is 0."""
    from_start: bool = False


class Log:
    """Metrics of a run, report by report, and when its fault strikes."""

    def __init__(self, seed: int, reports: int, fault: Fault | None) -> None:
        self.random = np.random.default_rng([seed, 7])
        self.reports, self.fault = reports, fault
        drawn = int(reports * self.random.uniform(0.25, 0.6))
        self.onset = None if fault is None else 0 if fault.from_start else drawn
        self.died = False
        """The script ended with an error of its own, so it is a crash, whatever its metrics say."""
        self._series: dict[str, list[tuple[int, float]]] = {}

    def struck(self, report: int) -> Fault | None:
        return self.fault if self.onset is not None and report >= self.onset else None

    def add(self, report: int, **metrics: SupportsFloat) -> None:
        for name, value in {**metrics, "progress": (report + 1) / self.reports}.items():
            self._series.setdefault(name.replace("__", "/"), []).append((10 * (report + 1), float(value)))

    @property
    def history(self) -> History:
        return History(self._series)


def _rate(rate: float, struck: Fault | None) -> float:
    return rate if struck is None else 0.0 if struck.frozen or struck.reset else rate * struck.rate


def _struck_weights(weights: list[np.ndarray], log: Log, report: int) -> None:
    """Does to the weights what a fault does when it strikes."""
    struck = log.struck(report)
    if struck is None or report != log.onset:
        return
    for each in weights:
        if struck.nan:
            each[...] = np.nan
        if struck.reset:
            each[...] = 0.3 * log.random.normal(size=each.shape)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def _blobs(random: np.random.Generator, samples: int, classes: int, apart: float) -> tuple[np.ndarray, np.ndarray]:
    centres = apart * random.normal(size=(classes, 8))
    labels = random.integers(classes, size=samples)
    return centres[labels] + random.normal(size=(samples, 8)), labels


def classifier(seed: int, fault: Fault | None = None, *, restarts: bool = False, overfit: bool = False) -> Log:
    """A perceptron with one hidden layer on blobs, by SGD with momentum; one report for each few minibatches."""
    log = Log(seed, 240, fault)
    random = log.random
    rate, classes = 10 ** random.uniform(-2.3, -0.8), int(random.integers(3, 8))
    data, labels = _blobs(random, 60 if overfit else 600, classes, 0.7 if overfit else random.uniform(0.8, 2.5))
    if overfit:
        labels = np.where(random.random(len(labels)) < 0.3, random.integers(classes, size=len(labels)), labels)
    train, test = np.arange(len(data)) < len(data) // 2, np.arange(len(data)) >= len(data) // 2
    weights = [random.normal(size=(8, 64)) / 3, np.zeros(64), random.normal(size=(64, classes)) / 8, np.zeros(classes)]
    momentum = [np.zeros_like(each) for each in weights]

    def forward(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        hidden = np.maximum(x @ weights[0] + weights[1], 0)
        chances = _softmax(hidden @ weights[2] + weights[3])
        return hidden, chances, float(-np.log(np.maximum(chances[np.arange(len(y)), y], 1e-300)).mean())

    for report in range(log.reports):
        _struck_weights(weights, log, report)
        now = _rate(rate, log.struck(report))
        if restarts:
            now *= 2.5 * (1 + np.cos(np.pi * (report % 60) / 60))
        losses, norms, right = [], [], []
        for _ in range(4):
            chosen = random.choice(np.flatnonzero(train), 32)
            x, y = data[chosen], labels[chosen]
            hidden, chances, loss = forward(x, y)
            error = chances.copy()
            error[np.arange(len(y)), y] -= 1
            error /= len(y)
            back = (error @ weights[2].T) * (hidden > 0)
            gradients = [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
            for weight, speed, gradient in zip(weights, momentum, gradients, strict=True):
                speed *= 0.9
                speed -= now * gradient
                weight += speed
            losses.append(loss)
            norms.append(np.sqrt(sum((each**2).sum() for each in gradients)))
            right.append((chances.argmax(1) == y).mean())
        _, chances, loss = forward(data[test], labels[test])
        accuracy = float((chances.argmax(1) == labels[test]).mean())
        log.add(report, train__loss=np.mean(losses), train__accuracy=np.mean(right), gradNorm=np.mean(norms),
                val__loss=loss, val__accuracy=accuracy)  # fmt: skip
    return log


def separable(seed: int, fault: Fault | None = None) -> Log:
    """Logistic regression on separable data, full batch: the loss goes to 0, the accuracy to 1, and they stay."""
    log = Log(seed, 200, fault)
    random = log.random
    data, labels = _blobs(random, 80, 2, 4.0)
    weights = [np.zeros(8)]
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        logits = data @ weights[0]
        error = 1 / (1 + np.exp(-np.clip(logits, -700, 700))) - labels
        gradient = data.T @ error / len(labels)
        loss = np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean()
        weights[0] -= _rate(0.5, log.struck(report)) * gradient
        log.add(report, loss=loss, acc=((logits > 0) == (labels == 1)).mean(), grad_norm=np.linalg.norm(gradient))
    return log


def hinge(seed: int, fault: Fault | None = None) -> Log:
    """A linear classifier with a hinge loss, which becomes exactly 0, as its gradient does."""
    log = Log(seed, 200, fault)
    data, labels = _blobs(log.random, 80, 2, 4.0)
    signs, weights = 2 * labels - 1, [np.zeros(8)]
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        margin = np.maximum(0, 1 - signs * (data @ weights[0]))
        gradient = -((margin > 0) * signs) @ data / len(labels)
        weights[0] -= _rate(0.1, log.struck(report)) * gradient
        log.add(report, hinge_loss=margin.mean(), grad_norm=np.linalg.norm(gradient))
    return log


def density(seed: int, fault: Fault | None = None) -> Log:
    """A normal distribution fitted to narrow data: the loss, a negative log-likelihood, falls far below 0."""
    log = Log(seed, 250, fault)
    random = log.random
    width = 10 ** random.uniform(-3, -1)
    weights, rate = [np.zeros(16), np.zeros(16)], 0.1  # means and logarithms of widths
    centres, squares = random.normal(size=16), [np.zeros(16), np.zeros(16)]
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        batch = centres + width * random.normal(size=(64, 16))
        scaled = (batch - weights[0]) * np.exp(-np.clip(weights[1], -300, 300))
        loss = (0.5 * scaled**2 + weights[1]).sum(1).mean()
        gradients = [-(scaled * np.exp(-np.clip(weights[1], -300, 300))).mean(0), 1 - (scaled**2).mean(0)]
        now = _rate(rate, log.struck(report))
        for weight, square, gradient in zip(weights, squares, gradients, strict=True):  # RMSprop
            square *= 0.9
            square += 0.1 * gradient**2
            weight -= now * gradient / (np.sqrt(square) + 1e-8)
        log.add(report, loss=loss, elbo=-loss, grad_norm=np.sqrt(sum((each**2).sum() for each in gradients)))
    return log


def adversarial(seed: int, fault: Fault | None = None) -> Log:
    """A generator and a discriminator of one weight each, which circle about each other: the losses oscillate."""
    log = Log(seed, 400, fault)
    random = log.random
    weights = [np.array([random.normal()]), np.array([random.normal()])]
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        now = _rate(random.uniform(0.05, 0.2), log.struck(report))
        for _ in range(3):
            g, d = float(weights[0][0]), float(weights[1][0])
            noise = 0.3 * random.normal(size=2)
            weights[1] += now * (g / (1 + np.exp(np.clip(d * g, -700, 700))) - 0.02 * d + noise[0])
            weights[0] -= now * (d / (1 + np.exp(np.clip(-d * g, -700, 700))) + 0.02 * g + noise[1])
        g, d = float(weights[0][0]), float(weights[1][0])
        log.add(report, d_loss=np.logaddexp(0, -d * g) + np.logaddexp(0, 0.3 * d), g_loss=np.logaddexp(0, d * g))
    return log


def cartpole(seed: int, fault: Fault | None = None) -> Log:
    """REINFORCE with a baseline and a linear policy on CartPole's equations; returns vary and sometimes fall."""
    log = Log(seed, 200, fault)
    random = log.random
    weights, level = [np.zeros((4, 2))], 20.0
    rate = 10 ** random.uniform(-2.2, -1.3)
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        games, now = 4, _rate(rate, log.struck(report))
        gradient, losses, returns, entropies = np.zeros((4, 2)), [], [], []
        for _ in range(games):
            states, grads, entropy = random.uniform(-0.05, 0.05, 4), [], 0.0
            for _step in range(200):
                chances = _softmax(states @ weights[0])
                action = int(not random.random() < chances[0])
                entropy -= float((chances * np.log(np.maximum(chances, 1e-300))).sum())
                grads.append((states, np.eye(2)[action] - chances, np.log(np.maximum(chances[action], 1e-300))))
                states = _cart(states, action)
                if abs(states[0]) > 2.4 or abs(states[2]) > 0.21:
                    break
            length = len(grads)
            returns.append(length)
            entropies.append(entropy / length)
            for index, (state, direction, chance) in enumerate(grads):
                gain = (length - index - level / 2) / 50
                gradient += gain * np.outer(state, direction) / games
                losses.append(-gain * chance)
        level = 0.9 * level + 0.1 * float(np.mean(returns))
        weights[0] += now * gradient
        log.add(report, policy_loss=np.mean(losses), episode_return=np.mean(returns), entropy=np.mean(entropies),
                episodes=games * (report + 1), grad_norm=np.linalg.norm(gradient))  # fmt: skip
    return log


def _cart(state: np.ndarray, action: int) -> np.ndarray:
    """One step of CartPole (Barto, Sutton & Anderson 1983), as in Gymnasium."""
    x, speed, angle, turn = state
    force, cosine, sine = (10.0 if action else -10.0), np.cos(angle), np.sin(angle)
    push = (force + 0.05 * turn**2 * sine) / 1.1
    angular = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    linear = push - 0.05 * angular * cosine / 1.1
    return np.array([x + 0.02 * speed, speed + 0.02 * linear, angle + 0.02 * turn, turn + 0.02 * angular])


def replay(seed: int, fault: Fault | None = None) -> Log:
    """Q-learning in a corridor from a replay buffer. The loss is NaN, a mean of nothing, until the buffer is full."""
    log = Log(seed, 200, fault)
    random = log.random
    length, weights, buffer = 8, [np.zeros((8, 2))], []
    filling = int(random.integers(5, 40))
    for report in range(log.reports):
        _struck_weights(weights, log, report)
        losses, place, reward = [], 0, 0.0
        for _ in range(40):
            greedy = random.random() > max(0.1, 1 - report / 80)
            action = int(np.argmax(weights[0][place] + 1e-9 * random.normal(size=2)) if greedy else random.integers(2))
            after = min(length - 1, max(0, place + (1 if action else -1)))
            gained = float(after == length - 1)
            buffer.append((place, action, gained, after))
            reward, place = reward + gained, 0 if gained else after
            if report >= filling:
                s, a, r, t = buffer[random.integers(len(buffer))]
                error = r + (0 if r else 0.95 * weights[0][t].max()) - weights[0][s, a]
                weights[0][s, a] += _rate(0.2, log.struck(report)) * error
                losses.append(error**2)
        loss = float(np.mean(losses)) if losses else float("nan")
        log.add(report, loss=loss, ep_reward=reward + 0.01 * random.normal())
    return log


def sparse_reward(seed: int, fault: Fault | None = None) -> Log:
    """Simulated: no reward for long, then the first; the critic's loss jumps from 1e-9 to 1, and grows with returns."""
    log = Log(seed, 600, fault)
    random = log.random
    found, rises, high = random.uniform(0.1, 0.6), random.uniform(3, 20), 10 ** random.uniform(0, 2.5)
    score = 0.0
    for report in range(log.reports):
        struck = log.struck(report)
        since = report / log.reports - found
        score = high * (1 - np.exp(-rises * since)) if since > 0 else 0.0
        spread = np.exp(0.7 * random.normal())
        norm, loss = spread * (1e-6 + 0.3 * score**0.5), spread * (1e-9 + 0.05 * score**1.5)
        seen = max(0.0, score * (1 + 0.4 * random.normal()))
        if struck is not None and struck.nan:
            loss = norm = np.nan
        if struck is not None and struck.rate > 1:
            loss, norm, seen = (loss + 1) * struck.rate**2, (norm + 1) * struck.rate, 0.1 * random.random()
        if struck is not None and struck.reset:
            seen = 0.02 * high * random.random() if since > 0 else 0.0
        log.add(report, train__value_loss=loss, train__grad_norm=norm, rollout__ep_rew_mean=seen)
    return log


def curriculum(seed: int, fault: Fault | None = None) -> Log:
    """Simulated: the task gets harder twice; the reward falls each time and recovers. Mixed precision skips steps."""
    log = Log(seed, 500, fault)
    random = log.random
    levels = np.sort(random.uniform(0.2, 0.8, 2)) * log.reports
    for report in range(log.reports):
        struck = log.struck(report)
        since = min([report - begun for begun in levels if report >= begun], default=report + 20)
        reward = 80 - 70 * np.exp(-since / 25) + 8 * random.normal()
        loss = np.exp(-since / 60) + 0.1 * abs(random.normal())
        norm = np.inf if report < random.integers(2, 9) or random.random() < 0.01 else np.exp(random.normal())
        if struck is not None and struck.nan:
            loss, norm = np.nan, np.nan
        if struck is not None and struck.rate > 1:
            loss, norm, reward = (loss + 1) * struck.rate, norm * struck.rate, 8 * random.normal()
        if struck is not None and struck.reset:
            reward, loss = 10 + 8 * random.normal(), 2 + 0.1 * abs(random.normal())
        log.add(report, loss=loss, mean_reward=reward, grad_norm=norm)
    return log


def sb3(seed: int, fault: Fault | None = None) -> Log:
    """Stable-Baselines3's PPO on CartPole, with the names that SB3 logs."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import KVWriter, Logger

    torch.set_num_threads(1)
    log = Log(seed, 60, fault)
    report = 0

    class Output(KVWriter):
        def write(self, key_values: dict[str, object], key_excluded: object, step: int = 0) -> None:
            nonlocal report
            wanted = ("train/loss", "train/value_loss", "train/policy_gradient_loss", "train/approx_kl",
                      "train/entropy_loss", "rollout/ep_rew_mean")  # fmt: skip
            found = {name.replace("/", "__"): float(key_values[name]) for name in wanted if name in key_values}  # type: ignore[arg-type]
            log.add(report, **found)
            report += 1

        def close(self) -> None: ...

    class Strike(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            struck = log.struck(report)
            if struck is not None and report == log.onset:
                with torch.no_grad():
                    for each in self.model.policy.parameters():
                        if struck.nan:
                            each.fill_(float("nan"))
                        if struck.reset:
                            each.copy_(0.3 * torch.randn_like(each))
            self.model.lr_schedule = lambda _: _rate(3e-4, struck)

    model = PPO("MlpPolicy", "CartPole-v1", n_steps=256, batch_size=64, n_epochs=4, seed=seed, device="cpu")
    model.set_logger(Logger(None, [Output()]))
    try:
        model.learn(256 * log.reports, callback=Strike(), log_interval=1)
    except ValueError:  # the distribution refuses NaN
        log.died = True
    return log


KINDS: dict[str, Callable[[int, Fault | None], Log]] = {
    "classifier": classifier,
    "restarts": partial(classifier, restarts=True),
    "overfit": partial(classifier, overfit=True),
    "separable": separable,
    "hinge": hinge,
    "density": density,
    "adversarial": adversarial,
    "cartpole": cartpole,
    "replay": replay,
    "sparse_reward": sparse_reward,
    "curriculum": curriculum,
    "sb3": sb3,
}
QUALITY: dict[str, tuple[str, int]] = {
    "classifier": ("train/accuracy", 1),
    "restarts": ("train/accuracy", 1),
    "overfit": ("train/accuracy", 1),
    "separable": ("acc", 1),
    "hinge": ("hinge_loss", -1),
    "density": ("loss", -1),
    "adversarial": ("d_loss", -1),
    "cartpole": ("episode_return", 1),
    "replay": ("ep_reward", 1),
    "sparse_reward": ("rollout/ep_rew_mean", 1),
    "curriculum": ("mean_reward", 1),
    "sb3": ("rollout/ep_rew_mean", 1),
}
"""Kind → the metric that says how good it is, and 1 if it should rise."""
FAULTS: dict[str, Fault] = {
    "nan": Fault(nan=True),
    "rate_1e3": Fault(rate=1e3),
    "rate_1e4": Fault(rate=1e4),
    "rate_1e6": Fault(rate=1e6),
    "rate_1e3_from_start": Fault(rate=1e3, from_start=True),
    "rate_1e4_from_start": Fault(rate=1e4, from_start=True),
    "rate_1e6_from_start": Fault(rate=1e6, from_start=True),
    "lost_weights": Fault(reset=True),
    "frozen_from_start": Fault(frozen=True, from_start=True),
}
