"""How this process wants MLflow to behave, in the variables and loggers that MLflow looks at. It imports no MLflow."""

from __future__ import annotations

import logging
import os
import sys

from pipeline.processes.environment import take_over

OURS = {
    # This program waits by itself, and MLflow's own retries could make a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # It says which run it means, and where that is.
    "MLFLOW_EXPERIMENT_NAME": None,
    "MLFLOW_EXPERIMENT_ID": None,
    "MLFLOW_ACTIVE_MODEL_ID": None,
    "MLFLOW_ARTIFACT_URI": None,
    "MLFLOW_REGISTRY_URI": None,
    "MLFLOW_RUN_CONTEXT": None,
    # What it has said, the store has; and nobody else says anything on its runs.
    "MLFLOW_ENABLE_ASYNC_LOGGING": None,
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": None,
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": None,
    "MLFLOW_TRUNCATE_LONG_VALUES": None,
    # It says little, and no statement of a database's.
    "MLFLOW_LOGGING_LEVEL": None,
    "MLFLOW_CONFIGURE_LOGGING": None,
    "MLFLOW_SQLALCHEMYSTORE_ECHO": None,
    # A model is logged as it is, without asking an index of packages.
    "MLFLOW_LOCK_MODEL_DEPENDENCIES": None,
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_REQUIREMENTS_INFERENCE_RAISE_ERRORS": None,
    "MLFLOW_DEFAULT_PREDICTION_DEVICE": None,
}
"""Name → what this program's own processes have instead; None: not set, so MLflow's default."""
_USUAL = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_LEVELS = {
    "mlflow.store.db.utils": logging.CRITICAL,  # what it says is in the error that it raises
    "alembic": logging.WARNING,
    "alembic.runtime.migration": logging.WARNING,
    "mlflow.tracking.fluent": logging.WARNING,
    "mlflow.utils.databricks_utils": logging.ERROR,  # the error that follows says the same
}


def prepare_mlflow() -> None:
    """Sets MLflow's variables and loggers. A second call changes nothing.

    Commands call it before they import MLflow, which reads `MLFLOW_DISABLE_TELEMETRY` then and the other variables at
    each call. A store calls it when it is opened, for programs that have imported MLflow before. A trainer of the
    user's own gets the user's values: `pipeline.processes.environment.their_environment`.
    """
    take_over(OURS)
    said = "MLFLOW_DISABLE_TELEMETRY" in os.environ
    for name, value in _USUAL.items():
        os.environ.setdefault(name, value)
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    if not said and (telemetry := sys.modules.get("mlflow.telemetry")) is not None:
        telemetry.set_telemetry_client()  # reads the variable again
