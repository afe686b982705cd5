"""A policy as a logged model in MLflow: `mlflow.pytorch.load_model` gives it back, in any process.

Not in `pipeline.tracking.store`, because `mlflow.pytorch` loads torch, which the orchestrator's process does without.
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
from pipeline.tracking import tags
from pipeline.tracking.access import TrainerRun
from pipeline.training.player import Player

NAME = "player"
REQUIREMENTS = ("mlflow", "torch", "torch-geometric", "entmax", "gymnasium", "nle", "numpy", "pydantic", "cloudpickle")
# It warns of pickle, which is meant: a traced graph (`pt2`) could not make a game, nor encode what it shows.
logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)


def log_player(run: TrainerRun, player: Player, step: int) -> str:
    """Logs the model as an output of the run, and names it in the tag `ladder.model`; returns its URI.

    With it go the signature, the requirements with their versions, and this package's code.
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
    """Of :meth:`Player.forward`."""
    inputs = (
        ("glyphs", "int16", MAP_SHAPE),
        ("blstats", "int64", (27,)),
        ("underfoot", "int16", ()),
        ("visited", "int8", MAP_SHAPE),
    )
    logits = TensorSpec(np.dtype("float32"), (-1, count_actions(player.environment)))
    return ModelSignature(
        Schema([TensorSpec(np.dtype(kind), (-1, *shape), name) for name, kind, shape in inputs]), Schema([logits])
    )
