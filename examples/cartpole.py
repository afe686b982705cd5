"""An example of your own trainer on your own environment: REINFORCE with a linear policy on CartPole, in plain NumPy.

`ladder run examples/cartpole.yaml` starts it. It shares only three environment variables with the ladder, and logs with
plain MLflow calls. MLFLOW_TRACKING_URI and MLFLOW_RUN_ID are MLflow's own variables. LADDER_ATTEMPT names a JSON file
with the resolved configuration.
"""

import json
import os
from pathlib import Path

import gymnasium as gym
import mlflow
import numpy as np


def episode(env: gym.Env, weights: np.ndarray, seed: int, random: np.random.Generator) -> tuple[float, np.ndarray]:
    """Plays one episode; returns its return and the policy gradient (4, 2).

    Args:
        env: the environment.
        weights: (4, 2), the linear policy.
        seed: seed of the episode.
        random: source of the actions.
    """
    observation, _ = env.reset(seed=seed)
    gradients, rewards, done = [], [], False
    while not done:
        logits = np.clip(observation @ weights, -20, 20)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        action = int(random.random() < p[1])
        gradients.append(np.outer(observation, np.eye(2)[action] - p))
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        done = terminated or truncated
    to_go = np.cumsum(rewards[::-1])[::-1]
    return sum(rewards), np.tensordot(to_go / to_go.max(), np.array(gradients), axes=1)


def main() -> None:
    config = json.loads(Path(os.environ["LADDER_ATTEMPT"]).read_text(encoding="utf-8"))["config"]
    rate = config["trainer"]["parameters"]["rate"]
    random = np.random.default_rng(config["training"]["seed"])
    env = gym.make("CartPole-v1")
    weights, scores, steps = np.zeros((4, 2)), [], 0
    with mlflow.start_run():  # the run that MLFLOW_RUN_ID names
        for number in range(1, config["training"]["episodes"] + 1):
            score, gradient = episode(env, weights, int(random.integers(2**31)), random)
            weights += rate * gradient
            scores.append(score)
            steps += int(score)
            values = {
                "episodes": number,
                "progress": number / config["training"]["episodes"],
                "score": score,
                "score_window": float(np.mean(scores[-20:])),
                "weight_norm": float(np.linalg.norm(weights)),
            }
            if number % 5 == 0:
                mlflow.log_metrics(values, step=steps)


if __name__ == "__main__":
    main()
