"""The training loop, which reads like this:

restore a checkpoint, if there is one to start from
until enough episodes are finished:
    keep the last good state
    collect a rollout                 (n games × T steps; phases switch as games begin)
    update the policy                 (PPO; skips minibatches that are not finite, rolls back after several in a row,
                                       and then goes on with half the learning rate for a while)
    log one batch of metrics          (step = environment steps)
    write a checkpoint, if 100 more episodes are finished, and after 2, 4, 8, … updates
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from pipeline.attempt.checkpoint_files import fingerprint
from pipeline.attempt.file import AttemptFile, Carry, PendingFault, WarmStart
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import SpoolWriter
from pipeline.config import ExperimentConfig
from pipeline.health.metrics import explained_variance
from pipeline.policy.build import build_policy
from pipeline.processes.signals import handle_asking
from pipeline.training.advantage import generalised_advantage
from pipeline.training.baseline import NAME as BASELINE
from pipeline.training.baseline import Baseline
from pipeline.training.beside import Beside
from pipeline.training.caution import Caution
from pipeline.training.checkpoint import BEST, EARLY, prune, read_or_older, write_checkpoint
from pipeline.training.measure import episode_metrics, main_phase, rollout_metrics, routing_by_situation
from pipeline.training.numerics import LastGoodState, RewardNormaliser
from pipeline.training.player import observation_spec
from pipeline.training.ppo import PPO
from pipeline.training.rollout import Played
from pipeline.training.transfer import carried_moments, carried_weights, fitted
from pipeline.training.workers import Workers

log = logging.getLogger("trainer")
_GRAPHS_INSPECTED = 256
_SITUATIONS_EVERY = 10
"""Updates between two measurements of the routing by situation: its twenty metrics cost a few milliseconds."""
_GPU_PAYS_ABOVE = 256
"""Hidden units above which a GPU is faster. A GPU spends its time on starting kernels, as many for a small policy as
for a large one: with 64 units two cores train twice as fast as an H100; with 256 they should be equal
(docs/decisions.md)."""
Log = Callable[[dict[str, float], int], object]
"""Takes metrics by name, and the environment steps at which they hold."""


class Trainer:
    """Trains one configuration.

    Args:
        config: the attempt's resolved configuration.
        folder: the attempt's folder; checkpoints go to `folder/checkpoints`.
        report: called once per update with metrics and environment steps.
        salt: mixed into the seed, so that a warm-started attempt does not replay the games of the one before.
        beside: workers' processes, if they have been started already.

    Raises:
        RuntimeError: the configuration asks for a GPU and there is none.
    """

    def __init__(
        self, config: ExperimentConfig, folder: Path, report: Log, salt: int = 0, beside: list[Beside] | None = None
    ) -> None:
        training = config.training
        torch.set_num_threads(training.threads)
        seeds = [int(each) for each in np.random.SeedSequence([training.seed, salt]).generate_state(3)]
        self.config, self.folder, self.report = config, folder, report
        device = choose_device(config)
        spec = observation_spec(config.played)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[1])
            self.policy = build_policy(spec, config.policy).to(device)
        self.workers = Workers(config, self.policy, seeds[0], seeds[2], device, beside)
        self.normaliser = RewardNormaliser(
            config.environment.num_envs, training.gamma, training.reward_clip, training.reward_centring
        )
        self.ppo = PPO(self.policy, config, self.workers, device)
        self.usage = [1.0] * len(self.policy.expert_names)
        """Mean weight of each expert over the newest samples."""
        self.last_good = LastGoodState(self._learning_state, self._restore_learning)
        self.steps = 0
        self.finished = 0
        self.updates = 0
        self.began = 0
        """Updates of the schedule that came before this attempt."""
        self.caution = Caution()
        self.scores: deque[float] = deque(maxlen=training.score_window)
        self.best_score: float | None = None
        self.faults: list[PendingFault] = []
        self.after_update: Callable[[bool], None] = lambda checkpoint_follows: None
        self._updates_here = 0
        self._reporting = 0.0
        self._best_saved = -1e30  # not −∞, because every number in a checkpoint must be finite
        self._stop = False

    # The loop

    def train(self, updates: int | None = None) -> bool:
        """Trains to the end of the configuration, or for a number of updates; returns False if it was asked to stop.

        Args:
            updates: number of updates; None: to the end.

        Raises:
            FloatingPointError: numbers are not finite from the start.
            WorkerGone: a worker's process has ended unexpectedly.
        """
        log.info(
            "training begins at update %d, episode %d, step %d, on the %s",
            self.updates, self.finished, self.steps, self.ppo.device.type,
        )  # fmt: skip
        checkpoint_due = self._next_checkpoint()
        last = None if updates is None else self.updates + updates
        rolled_back = False
        while self.progress < 1 and self.updates != last and not self._stop:
            if not rolled_back:  # after a rollback the state is the kept one, from which an update has just failed
                self.last_good.keep()
            started = time.perf_counter()
            played = Played.join(self.workers.call("collect", self.finished))
            self.steps += played.reward.size
            self.finished += len(played.episodes)
            measured = self.learn_from(played)
            collected = time.perf_counter()
            self._strike_faults()
            learnt = self.ppo.update(self.finished, main_phase(played), self.last_good, self.caution.factor)
            if self.updates % _SITUATIONS_EVERY == 0:
                measured |= routing_by_situation(played, self.policy.expert_names)
            rolled_back = bool(learnt.pop("rolled_back"))
            self.caution.note(rolled_back=rolled_back, skipped=int(learnt["nonfinite_batches"]))
            self.updates += 1
            self._updates_here += 1
            seconds = {"collect": collected - started, "update": time.perf_counter() - collected}
            self._report(played, measured | learnt, seconds)
            checkpoint_follows = self.finished >= checkpoint_due
            self.after_update(checkpoint_follows)
            if checkpoint_follows:
                self.save()
                checkpoint_due = self._next_checkpoint()
            elif self._early_is_due():
                self._save(early=True)
        self.save()
        return not self._stop

    @property
    def progress(self) -> float:
        """Share of the run that is done, by episodes or by steps, whichever is more; at 1 or above the run is over."""
        training = self.config.training
        by_steps = 0.0 if training.steps is None else self.steps / training.steps
        return max(self.finished / training.episodes, by_steps)

    def learn_from(self, played: Played) -> dict[str, float]:
        """Computes advantages and returns of a rollout and gives them to the workers; returns the rollout's metrics."""
        training = self.config.training
        advantage = generalised_advantage(
            reward=torch.from_numpy(self.normaliser(played.reward, played.terminated | played.truncated)),
            value=torch.from_numpy(played.value),
            next_value=torch.from_numpy(played.next_value),
            terminated=torch.from_numpy(played.terminated),
            truncated=torch.from_numpy(played.truncated),
            gamma=training.gamma,
            gae_lambda=training.gae_lambda,
        ).numpy()
        returns = advantage + played.value
        if self.usage:  # a policy without experts has none
            self.usage = played.alpha.reshape(-1, len(self.usage)).mean(0).tolist()
        count = training.workers
        parts = zip(np.split(advantage, count, axis=1), np.split(returns, count, axis=1), strict=True)
        self.workers.call_each("learn_from", list(parts))
        graphs = self.workers.call("inspect_graphs", _GRAPHS_INSPECTED // count)
        return (
            rollout_metrics(played, self.policy.expert_names)
            | {name: float(np.mean([each[name] for each in graphs])) for name in graphs[0]}
            | episode_metrics(played.episodes)
            | {"explained_variance": explained_variance(played.value, returns)}
        )

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._stop

    def stop(self) -> None:
        """Makes `train` end after the present update, with a checkpoint."""
        self._stop = True

    def close(self) -> None:
        """Ends the workers' processes."""
        self.workers.close()

    def _next_checkpoint(self) -> int:
        every = self.config.training.checkpoint_every_episodes
        return (self.finished // every + 1) * every

    def _early_is_due(self) -> bool:
        """Whether a checkpoint in between is written: 2, 4, 8, … updates after the attempt began."""
        here = self.updates - self.began
        return here > 1 and here & (here - 1) == 0

    def _report(self, played: Played, metrics: dict[str, float], seconds: dict[str, float]) -> None:
        self.scores.extend(episode.score for episode in played.episodes)
        if self.scores:
            newest = metrics["score_window"] = float(np.mean(self.scores))
            if self.best_score is not None:
                self.best_score = max(newest, self.best_score)
            elif len(self.scores) == self.scores.maxlen:
                self.best_score = newest
            # Until the window is full, the best is the mean of all games: that of the first few is luck.
            metrics["best/score_window"] = newest if self.best_score is None else self.best_score
        metrics |= {
            "rollbacks": float(self.caution.rollbacks),
            "episodes": float(self.finished),
            "progress": min(1.0, self.progress),  # more games may end than were asked for
            "memory_mb": self._memory(),
            "update": float(self.updates),
            "time/collect": seconds["collect"],
            "time/update": seconds["update"],
        }
        reporting = time.perf_counter()
        metrics["steps_per_second"] = played.reward.size / (sum(seconds.values()) + self._reporting)
        metrics["time/report"] = self._reporting
        self.report(metrics, self.steps)
        self._reporting = time.perf_counter() - reporting
        log.info(
            "update %d, episode %d, step %d: score %.1f, %.0f steps/s",
            self.updates, self.finished, self.steps,
            metrics.get("score_window", float("nan")), metrics["steps_per_second"],
        )  # fmt: skip

    def _memory(self) -> float:
        """Resident memory of this process and its workers, in megabytes; shared memory counts once for each."""
        me = psutil.Process()
        return sum(each.memory_info().rss for each in (me, *me.children()) if each.name() != BASELINE) / 2**20

    # State

    def _learning_state(self) -> dict[str, Any]:
        """The state that a rollback restores."""
        return {
            "policy": self.policy.state_dict(),
            "ppo": self.ppo.state(),
            "normaliser": self.normaliser.state(),
            "random": [torch.from_numpy(state) for state in self.workers.call("random_state")],
        }

    def _restore_learning(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.ppo.restore(state["ppo"])
        self.normaliser.restore(state["normaliser"])
        self.workers.call_each("restore_random", [(each.numpy(),) for each in state["random"]])

    def save(self) -> None:
        """Writes a checkpoint; writes it as `best` too if its windowed score is the best so far.

        Raises:
            OSError: the disk is full.
        """
        self._save(early=False)

    def _save(self, *, early: bool) -> None:
        """The same; an early one, in between, is never the best."""
        checkpoints = AttemptFolder(self.folder).checkpoints
        score = float(np.mean(self.scores)) if self.scores else None
        best = not early and score is not None and len(self.scores) == self.scores.maxlen and score > self._best_saved
        if best and score is not None:
            self._best_saved = score
        state = self._learning_state() | {
            "workers": self.workers.call("state"),
            "finished": self.finished,
            "steps": self.steps,
            "updates": self.updates,
            "began": self.began,
            "caution": self.caution.state(),
            "scores": list(self.scores),
            "best_score": self.best_score,
            "best_saved": self._best_saved,
            "experts": list(self.policy.expert_names),
            "usage": self.usage,
        }
        info = {
            "episode": self.finished,
            "step": self.steps,
            "update": self.updates,
            "score_window": score,
            "kind": self.config.policy.kind,
            "experts": self.policy.expert_names,
            "configuration": fingerprint(self.config),
        }
        write_checkpoint(checkpoints, f"{EARLY if early else ''}{self.updates:08d}", state, **info)
        if best:
            write_checkpoint(checkpoints, f"{BEST}{self.updates:08d}", state, **info)
        prune(checkpoints, self.config.training.checkpoints_kept)

    def start_from(self, start: WarmStart) -> None:
        """Loads a checkpoint, exactly or only what its `carry` names.

        If the checkpoint is damaged or foreign, the newest good one before it is loaded instead.

        Raises:
            BadCheckpoint: no checkpoint can be read.
        """
        own = fingerprint(self.config) if start.exact else ""
        state, path, problems = read_or_older(Path(start.checkpoint), own)
        state = fitted(state, self.policy)
        for problem in problems:
            log.warning("passed over: %s", problem)
        if start.exact:
            self._restore_learning(state)
            self.finished = state["finished"]
            anew = sum(self.workers.call_each("restore", [(each,) for each in state["workers"]]))
            if anew:
                log.warning("%d games could not be replayed and begin anew", anew)
        else:
            self._load_weights(state, start.carry)
        if start.exact or start.carry.schedule:
            self.steps, self.updates = state["steps"], state["updates"]
        self.began = state.get("began", 0) if start.exact else self.updates
        if start.exact:  # scores of another configuration do not count for this one
            self.scores.extend(state["scores"])
            self.best_score, self._best_saved = state["best_score"], state["best_saved"]
            self.caution = Caution(**state.get("caution", {"rollbacks": state.get("rollbacks", 0)}))
        log.info("starts from episode %d of run %s (%s)", state["finished"], start.run_id, path)

    def _load_weights(self, state: dict[str, Any], carry: Carry) -> None:
        self.policy.load_state_dict(carried_weights(state, carry, self.policy))
        if carry.optimiser:
            moments = carried_moments(state, carry, self.policy)
            self.ppo.restore({"moments": moments, "optimiser_steps": self.ppo.optimiser_steps})
        if carry.schedule:
            self.ppo.optimiser_steps = state["ppo"]["optimiser_steps"] if carry.warmed_up else 0
            self.normaliser.restore(state["normaliser"], games=False)
            self.finished = state["finished"]
            self.workers.call("count_from", self.finished)

    # Faults for drills

    def _strike_faults(self) -> None:
        for pending in list(self.faults):
            if self._updates_here + 1 < pending.fault.at_update:
                continue
            self.faults.remove(pending)
            pending.marker(self.folder).touch()
            log.warning("fault: %s", pending.fault.kind)
            if pending.fault.kind == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif pending.fault.kind == "hang":
                while True:
                    time.sleep(60)
            elif pending.fault.kind == "out_of_memory":
                torch.empty(2**55, dtype=torch.uint8)
            elif pending.fault.kind == "nan_observation":
                self.workers.call("poison_observations", pending.fault.times)
            else:
                self.ppo.poison = pending.fault.times


def choose_device(config: ExperimentConfig) -> torch.device:
    """The device on which the policy is computed; `auto` means the GPU, if there is one and the policy is large enough.

    Raises:
        RuntimeError: the configuration asks for a GPU and there is none.
    """
    name = config.training.device
    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("training.device: cuda is asked for, and there is no such device")
    if name == "auto":
        name = "cuda" if config.policy.hidden_size > _GPU_PAYS_ABOVE and torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run_attempt(attempt: AttemptFile, metrics: SpoolWriter, beside: list[Beside], baseline: Baseline) -> bool:
    """Trains as an attempt's file says; False if it was asked to stop (SIGTERM) before the end.

    Args:
        metrics: takes the metrics of each update.
        beside: the workers' processes.
        baseline: its result belongs to the steps at which the attempt begins. It is there with the first checkpoint, so
            that an attempt that starts from one need not play it again.
    """
    trainer = Trainer(attempt.config, Path(attempt.folder), metrics.write, attempt.number, beside)
    handle_asking(lambda *_: trainer.stop())
    trainer.faults = list(attempt.faults)
    start = attempt.resume_from or attempt.warm_start
    if start is not None:
        trainer.start_from(start)
    began = 0 if attempt.resume_from else trainer.steps

    def still_training() -> bool:
        metrics.sign_of_life()
        return not trainer.stopping

    def report_baseline(wait: bool) -> None:
        if (found := baseline.result(still_training if wait else lambda: False)) is not None:
            metrics.write_late(found, began)

    trainer.after_update = report_baseline
    try:
        report_baseline(False)
        done = trainer.train()
        report_baseline(done)
        return done
    finally:
        trainer.close()
