"""Stable-Baselines3's PPO on the same games, as a user of that library would set it up.

The network is SB3's own small perceptron on the glyph crop and the statistics, or this project's V3 network through
SB3's custom-policy interface. In the second case only the network is V3's, because SB3's loss has no terms for the
router. The games are Gymnasium environments in SB3's own `DummyVecEnv`, as its documentation shows, or this project's
`Games`, which encode the observations of all games at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from nle import nethack
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from torch import Tensor

from pipeline.config import EnvironmentSection, ExperimentConfig, PolicySection
from pipeline.environments.entity_graph import GLYPHS, encode
from pipeline.environments.level import MAP_SHAPE
from pipeline.environments.nethack import Episode, NetHackGame
from pipeline.environments.paths import GOALS
from pipeline.environments.vector import Games, game_seeds
from pipeline.policy.interface import Routing
from pipeline.policy.v3 import V3Policy
from pipeline.training.player import observation_spec


def observe(observation: dict[str, np.ndarray], config: EnvironmentSection, graph: bool) -> Any:
    """Encoded observations of n games: with `graph` V3's input, else the plain policy's input as one array (n, …)."""
    arrays = encode(observation, config)
    if graph:
        return arrays
    planes = [arrays[key].reshape(len(arrays[key]), -1) for key in ("crop", "visited")]
    return np.concatenate([planes[0] / np.float32(GLYPHS), planes[1], arrays["stats"]], axis=1, dtype=np.float32)


def space_of(config: EnvironmentSection, graph: bool, actions: int) -> gym.spaces.Space[Any]:
    """The space of one game's encoded observation, derived from an empty screen, so that no game has to be started."""
    blank = {
        "glyphs": np.zeros((1, *MAP_SHAPE), np.int16),
        "blstats": np.zeros((1, *nethack.BLSTATS_SHAPE), np.int64),
        "underfoot": np.zeros(1, np.int16),
        "visited": np.zeros((1, *MAP_SHAPE), np.int8),
        "paths": np.zeros((1, len(GOALS), 2), np.int8),
        "action_mask": np.ones((1, actions), np.int8),
    }
    observed = observe(blank, config, graph)
    if graph:
        return gym.spaces.Dict({key: _box(array[0]) for key, array in observed.items()})
    return _box(observed[0])


def _box(example: np.ndarray) -> gym.spaces.Box:
    if example.dtype == np.float32:
        return gym.spaces.Box(-np.inf, np.inf, example.shape, np.float32)
    kind = np.dtype(np.uint8) if example.dtype == bool else example.dtype
    limits = np.iinfo(kind)
    return gym.spaces.Box(limits.min, limits.max, example.shape, kind.type)


class EncodedGame(gym.ObservationWrapper[Any, Any, Any]):
    """One game whose observations are encoded one at a time."""

    def __init__(self, config: EnvironmentSection, seed: np.random.SeedSequence, graph: bool) -> None:
        super().__init__(NetHackGame(config.played(graph), seed))
        self._config, self._graph = config, graph
        self.observation_space = space_of(config, graph, self.action_space.n)  # type: ignore[attr-defined]

    def observation(self, observation: Any) -> Any:
        one = {key: np.asarray(array)[None] for key, array in observation.items()}
        encoded = observe(one, self._config, self._graph)
        return {key: array[0] for key, array in encoded.items()} if self._graph else encoded[0]


class GamesVecEnv(VecEnv):
    """`Games` as a vector environment of SB3's. `episodes` collects (steps played, episode) for each one that ended."""

    def __init__(self, config: EnvironmentSection, seed: int, graph: bool) -> None:
        self._config, self._graph = config, graph
        self._games = Games(config.played(graph), game_seeds(config, seed))
        self.episodes: list[tuple[int, Episode]] = []
        self._steps = 0
        space = space_of(config, graph, self._games.num_actions)
        super().__init__(config.num_envs, space, gym.spaces.Discrete(self._games.num_actions))

    def _observe(self, observation: dict[str, np.ndarray]) -> Any:
        return observe(observation, self._config, self._graph)

    def reset(self) -> VecEnvObs:
        return self._observe(self._games.reset())

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        step = self._games.step(self._actions)
        self._steps += self.num_envs
        self.episodes += [(self._steps, episode) for episode in step.episodes]
        done = step.terminated | step.truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if step.final_observation is not None:
            final = self._observe(step.final_observation)
            for index in np.flatnonzero(done):
                last = {key: array[index] for key, array in final.items()} if self._graph else final[index]
                cut = bool(step.truncated[index] and not step.terminated[index])
                infos[index] = {"terminal_observation": last, "TimeLimit.truncated": cut}
        return self._observe(step.observation), step.reward, done, infos

    def close(self) -> None:
        self._games.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class V3ForSB3(ActorCriticPolicy):
    """V3 as a policy of SB3's, with sparsemax routing at temperature 1."""

    def __init__(self, *arguments: Any, network: PolicySection, environment: EnvironmentSection, **named: Any) -> None:
        self._network, self._environment = network, environment
        super().__init__(*arguments, **{**named, "features_extractor_class": _Nothing})

    def _build(self, lr_schedule: Schedule) -> None:
        self.v3 = V3Policy(observation_spec(self._environment), self._network)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _run(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        obs = obs | {key: obs[key].bool() for key in ("adjacency", "action_mask")}
        count = len(obs["stats"])
        output = self.v3(obs, Routing(torch.ones(count, dtype=torch.bool), torch.ones(count)), {})
        return output.logits, output.value

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        logits, value = self._run(obs)  # type: ignore[arg-type]
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, value.unsqueeze(-1), distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        logits, value = self._run(obs)  # type: ignore[arg-type]
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        return value.unsqueeze(-1), distribution.log_prob(actions), distribution.entropy()

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        return self._run(obs)[1].unsqueeze(-1)  # type: ignore[arg-type]


class _Nothing(FlattenExtractor):
    """A feature extractor that is never called: SB3 requires one, and V3 takes the observation as it is."""

    def __init__(self, observation_space: gym.Space[Any]) -> None:
        super().__init__(gym.spaces.Box(0, 1, (1,)))


def build(config: ExperimentConfig, games: VecEnv, v3: bool = False) -> PPO:
    """SB3's PPO with this experiment's coefficients; `v3`: with the V3 network instead of the perceptron."""
    training = config.training
    torch.set_num_threads(training.threads)
    return PPO(
        V3ForSB3 if v3 else "MlpPolicy",
        VecNormalize(games, norm_obs=False, gamma=training.gamma, clip_reward=training.reward_clip),
        learning_rate=training.learning_rate,
        n_steps=training.rollout_steps,
        batch_size=training.batch_size,
        n_epochs=training.ppo_epochs,
        gamma=training.gamma,
        gae_lambda=training.gae_lambda,
        clip_range=training.clip_ratio,
        ent_coef=training.entropy_coef,
        vf_coef=training.critic_coef,
        max_grad_norm=training.max_grad_norm,
        policy_kwargs={"network": config.policy, "environment": config.environment} if v3 else None,
        seed=training.seed,
        device="cpu",
    )


def dummy_games(config: EnvironmentSection, seed: int, graph: bool) -> VecEnv:
    """The games in SB3's own vector environment."""

    def make(sequence: np.random.SeedSequence) -> Callable[[], gym.Env[Any, Any]]:
        return lambda: EncodedGame(config, sequence, graph)

    return DummyVecEnv([make(sequence) for sequence in game_seeds(config, seed)])
