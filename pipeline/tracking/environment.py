"""How this process wants MLflow to behave, in the variables and loggers that MLflow looks at. It imports no MLflow."""

from __future__ import annotations

import json
import logging
import os
import sys

OWN_WAITING = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""How this program speaks to a server. It waits by itself, and MLflow's own retries could make a run twice."""
MLFLOW_WAITING = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7", "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
"""MLflow's defaults."""
_BEFORE = "LADDER_MLFLOW_WAITING"
"""JSON: what the user's environment had in place of `OWN_WAITING`, for this process and those that it starts."""
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
    each call. A store calls it when it is opened, for programs that have imported MLflow before.
    """
    os.environ[_BEFORE] = json.dumps(_before())
    os.environ.update(OWN_WAITING)
    said = "MLFLOW_DISABLE_TELEMETRY" in os.environ
    for name, value in _USUAL.items():
        os.environ.setdefault(name, value)
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    if not said and (telemetry := sys.modules.get("mlflow.telemetry")) is not None:
        telemetry.set_telemetry_client()  # reads the variable again


def their_waiting() -> dict[str, str]:
    """The variables of `OWN_WAITING` for a trainer: as the user's environment had them, or MLflow's defaults.

    A trainer that is the user's own script waits inside MLflow, as it knows no better.
    """
    before = _before()
    return {name: value if (value := before[name]) is not None else usual for name, usual in MLFLOW_WAITING.items()}


def _before() -> dict[str, str | None]:
    """What the environment had, or has, in place of each variable of `OWN_WAITING`; None: it was not set.

    The note of an earlier call, in this process or in one that started it, counts as long as our values stand.
    """
    noted = json.loads(os.environ.get(_BEFORE, "{}"))
    now = {name: os.environ.get(name) for name in OWN_WAITING}
    return {name: noted[name] if name in noted and now[name] == own else now[name] for name, own in OWN_WAITING.items()}
