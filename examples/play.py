"""Loads a policy from MLflow and lets it play NetHack: `python examples/play.py [MODEL_URI] [SEED]`.

It needs nothing but the model, which includes the code that loads it. MLflow prints any requirement that is missing.
The default is the newest model in the store of MLFLOW_TRACKING_URI, or in mlruns/mlflow.db.
"""

import os
import sys

import mlflow
import torch

os.environ.setdefault("MLFLOW_TRACKING_URI", "sqlite:///mlruns/mlflow.db")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def newest_model() -> str:
    """URI of the newest complete model."""
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    order = [{"field_name": "creation_time", "ascending": False}]
    found = mlflow.search_logged_models(
        experiments, filter_string="name = 'player'", order_by=order, max_results=1, output_format="list"
    )
    if not found:
        sys.exit("there is no model yet: make run")
    return found[0].model_uri


def main(uri: str, seed: int) -> None:
    """Plays one game with the model, and prints how it ended."""
    player = mlflow.pytorch.load_model(uri)
    torch.manual_seed(seed)
    game = player.new_game(seed)
    observation, _ = game.reset()
    done = False
    while not done:
        observation, _, terminated, truncated, _ = game.step(player.act(observation))
        done = terminated or truncated
    episode = game.last_episode
    end = "died" if episode.died else "still alive"
    print(f"score {episode.score:.0f} after {episode.steps} steps on dungeon level {episode.depth}, {end}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else newest_model(), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
