"""A policy as a logged model in MLflow; `mlflow.pytorch.load_model` loads it in any process.

This module is not part of `pipeline.tracking`, because `mlflow.pytorch` loads torch, and the orchestrator's process
does not load torch.
"""

from __future__ import annotations

import logging
import tempfile
from importlib.metadata import version
from pathlib import Path

import mlflow.pytorch
import numpy as np
from mlflow.entities import LoggedModelOutput
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

import pipeline
from pipeline.environments.level import MAP_SHAPE
from pipeline.environments.nethack import count_actions
from pipeline.environments.paths import GOALS
from pipeline.tracking import tags
from pipeline.tracking.access import TrainerRun
from pipeline.training.player import Player

NAME = "player"
REQUIREMENTS = ("mlflow", "torch", "torch-geometric", "entmax", "gymnasium", "nle", "numpy", "pydantic", "cloudpickle")
# MLflow warns of pickle. Pickle is needed: a traced graph (`pt2`) could neither start a game nor encode observations.
logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)


def log_player(run: TrainerRun, player: Player, step: int) -> str:
    """Logs the player as a model, an output of the run, and names it in the tag `ladder.model`; returns its URI.

    The model includes its signature, the requirements with their versions, and this package's code.
    """
    client = run.client
    experiment = client.get_run(run.run_id).info.experiment_id
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pytorch.save_model(
            player,
            f"{folder}/model",
            code_paths=[str(Path(pipeline.__file__).parent)],
            signature=signature(player),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            serialization_format="pickle",
        )
        model = client.create_logged_model(experiment, name=NAME, source_run_id=run.run_id, model_type="policy")
        client.log_model_artifacts(model.model_id, f"{folder}/model")
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step)])
    uri = f"models:/{model.model_id}"
    run.set_tag(tags.MODEL, uri)
    return uri


def signature(player: Player) -> ModelSignature:
    """Signature of :meth:`Player.forward`: names, types and shapes of its input and output."""
    actions = count_actions(player.environment)
    inputs = (
        ("glyphs", "int16", MAP_SHAPE),
        ("blstats", "int64", (27,)),
        ("underfoot", "int16", ()),
        ("visited", "int8", MAP_SHAPE),
        ("paths", "int8", (len(GOALS), 2)),
        ("action_mask", "int8", (actions,)),
    )
    logits = TensorSpec(np.dtype("float32"), (-1, actions))
    return ModelSignature(
        Schema([TensorSpec(np.dtype(kind), (-1, *shape), name) for name, kind, shape in inputs]), Schema([logits])
    )
