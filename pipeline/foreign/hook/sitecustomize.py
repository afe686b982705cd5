"""Leads a script that calls MLflow in its own way to the run of its attempt. Python imports this file at its start.

It is found by PYTHONPATH, which the orchestrator sets for a trainer of the user's own (`trainer.redirect`). It runs in
the user's Python, of any version and with any MLflow, so it imports nothing but the standard library, and an error in
it leaves the script as it is. It says on standard error what it does, each thing once.

    set_tracking_uri            the store stays the attempt's; the model registry becomes the script's
    set_experiment              the experiment stays the attempt's
    start_run                   continues the attempt's run, which keeps its name; later ones are nested in it
    MlflowClient.create_run     the first one is the attempt's run, also of a client of another store
    MlflowClient(a folder)      a client of the attempt's store: newer versions of MLflow refuse folders
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import Any

_RUN, _URI = os.environ.get("MLFLOW_RUN_ID", ""), os.environ.get("MLFLOW_TRACKING_URI")
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
_said: set[str] = set()
_taken = {"run": False, "inside": False}
"""Whether the attempt's run has been continued; whether `start_run` is at work, which calls `create_run` itself."""


def _say(what: str) -> None:
    if what not in _said:
        _said.add(what)
        with contextlib.suppress(Exception):
            print(f"ladder: {what} (trainer.redirect: false leaves it alone)", file=sys.stderr, flush=True)


def _attempts_experiment() -> str:
    from mlflow.tracking import MlflowClient

    return str(MlflowClient(tracking_uri=_URI).get_run(_RUN).info.experiment_id)


def _patch_uri(module: Any) -> None:
    """mlflow.tracking._tracking_service.utils"""
    original = module.set_tracking_uri

    @functools.wraps(original)
    def set_tracking_uri(uri: Any = None, *rest: Any, **more: Any) -> Any:
        if uri is None or str(uri) == _URI:
            return original(uri, *rest, **more)
        _say(f"mlflow.set_tracking_uri({str(uri)!r}): the metrics go to the attempt's run all the same")
        with contextlib.suppress(Exception):
            from mlflow.tracking._model_registry import utils

            if utils.get_registry_uri() == _URI:
                utils.set_registry_uri(str(uri))
        return None

    module.set_tracking_uri = set_tracking_uri


def _patch_fluent(module: Any) -> None:
    """mlflow.tracking.fluent"""
    set_original, start_original = module.set_experiment, module.start_run

    @functools.wraps(set_original)
    def set_experiment(*names: Any, **more: Any) -> Any:
        name = next((each for each in (*names, *more.values()) if each is not None), None)
        _stay()
        _say(f"mlflow.set_experiment({name!r}): the metrics go to the attempt's run all the same")
        return set_original(experiment_id=_attempts_experiment())

    @functools.wraps(start_original)
    def start_run(run_id: Any = None, experiment_id: Any = None, *rest: Any, **more: Any) -> Any:
        if run_id is not None or module.active_run() is not None:
            return start_original(run_id, experiment_id, *rest, **more)
        _stay()
        if not _taken["run"]:
            _taken["run"] = True
            os.environ["MLFLOW_RUN_ID"] = _RUN
            kept = {name: value for name, value in more.items() if name not in ("run_name", "parent_run_id")}
            return start_original(
                None, None, *(None if place == 0 else each for place, each in enumerate(rest)), **kept
            )
        _say("the script starts further runs: each is nested in the attempt's run")
        os.environ.pop("MLFLOW_RUN_ID", None)
        _taken["inside"] = True
        try:
            more["tags"] = {**(more.get("tags") or {}), "mlflow.parentRunId": _RUN}
            return start_original(None, _attempts_experiment(), *rest, **more)
        finally:
            _taken["inside"] = False

    def _stay() -> None:
        """The script may have set MLFLOW_TRACKING_URI itself."""
        from mlflow.tracking._tracking_service import utils

        if _URI and utils.get_tracking_uri() != _URI:
            _say("MLFLOW_TRACKING_URI of the script: the metrics go to the attempt's run all the same")
            utils.set_tracking_uri(_URI)

    module.set_experiment, module.start_run = set_experiment, start_run


def _patch_client(module: Any) -> None:
    """mlflow.tracking.client"""
    kind = module.MlflowClient
    original, initialise = kind.create_run, kind.__init__

    @functools.wraps(initialise)
    def __init__(self: Any, tracking_uri: Any = None, *rest: Any, **more: Any) -> None:
        if tracking_uri is not None and str(tracking_uri) != _URI and _is_folder(str(tracking_uri)):
            _say(f"MlflowClient({str(tracking_uri)!r}): the metrics go to the attempt's run all the same")
            tracking_uri = _URI
        initialise(self, tracking_uri, *rest, **more)

    @functools.wraps(original)
    def create_run(self: Any, *given: Any, **more: Any) -> Any:
        if _taken["run"] or _taken["inside"]:
            return original(self, *given, **more)
        _taken["run"] = True
        if getattr(self, "tracking_uri", _URI) != _URI:
            initialise(self, _URI)
        _say("MlflowClient.create_run: the first run is the attempt's")
        return self.get_run(_RUN)

    kind.__init__, kind.create_run = __init__, create_run


def _is_folder(uri: str) -> bool:
    return uri.startswith("file:") or (":" not in uri and not uri.startswith("databricks") and uri not in ("", "uc"))


_PATCHES = {
    "mlflow.tracking._tracking_service.utils": _patch_uri,
    "mlflow.tracking.fluent": _patch_fluent,
    "mlflow.tracking.client": _patch_client,
}


class _Finder:
    """Patches three modules of MLflow as soon as the script has imported them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _PATCHES:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                with contextlib.suppress(Exception):
                    _after_execution(spec, _PATCHES[name])
                return spec
        return None


def _after_execution(spec: ModuleSpec, patch: Any) -> None:
    loader: Any = spec.loader
    execute = loader.exec_module

    def exec_module(module: Any) -> None:
        execute(module)
        with contextlib.suppress(Exception):
            patch(module)

    loader.exec_module = exec_module


def _go_on() -> None:
    """Executes the `sitecustomize` that this one hides, if there is one, and leaves no trace on the path."""
    sys.path[:] = [each for each in sys.path if os.path.abspath(each) != _HERE]  # noqa: PTH100
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if _RUN and _URI and os.environ.get("LADDER_ATTEMPT"):
    sys.meta_path.insert(0, _Finder())
_go_on()
