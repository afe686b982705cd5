"""A script that calls MLflow in its own way: its metrics go to the attempt's run, and nothing breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ExperimentConfig
from pipeline.foreign.redirect import HOOK, redirected
from pipeline.tracking.store import Store
from tests.conftest import small_config

FAKE = {
    "__init__.py": """
from mlflow.tracking._tracking_service.utils import set_tracking_uri, get_tracking_uri
from mlflow.tracking.fluent import set_experiment, start_run, active_run
from mlflow.tracking import MlflowClient
""",
    "tracking/__init__.py": "from mlflow.tracking.client import MlflowClient\n",
    "tracking/_tracking_service/__init__.py": "",
    "tracking/_tracking_service/utils.py": """
import os
def get_tracking_uri(): return os.environ["MLFLOW_TRACKING_URI"]
def set_tracking_uri(uri): os.environ["MLFLOW_TRACKING_URI"] = uri
""",
    "tracking/client.py": """
from types import SimpleNamespace as S
class MlflowClient:
    def __init__(self, tracking_uri=None):
        from mlflow.tracking._tracking_service import utils
        self.tracking_uri = tracking_uri or utils.get_tracking_uri()
    def get_run(self, run): return S(info=S(experiment_id="of the attempt", run_id=run))
    def create_run(self, experiment_id, **more): return S(info=S(experiment_id=experiment_id, run_id="new", more=more))
""",
    "tracking/fluent.py": """
import os
from mlflow.tracking.client import MlflowClient
_active = []
def active_run(): return _active[-1] if _active else None
def set_experiment(experiment_name=None, experiment_id=None): return experiment_name or experiment_id
def start_run(run_id=None, experiment_id=None, run_name=None, nested=False, tags=None):
    env = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id or env: run = MlflowClient().get_run(run_id or env); run.name = run_name
    else: run = MlflowClient().create_run(experiment_id, tags=tags, name=run_name)
    _active.append(run); return run
def end(): _active.pop()
""",
}
"""What the hook touches of MLflow, of any version."""


OTHER_STORE = """
import os
os.environ["MLFLOW_TRACKING_URI"] = "theirs"
print(mlflow.start_run().info.run_id, mlflow.get_tracking_uri())
"""
SECOND_RUN = """
import mlflow.tracking.fluent
mlflow.start_run()
mlflow.tracking.fluent.end()
info = mlflow.start_run().info
print(info.run_id, info.experiment_id, info.more["tags"])
"""


@pytest.fixture
def say(tmp_path: Path) -> object:
    """Runs a script with the hook and the fake; returns what it prints, and what it prints on standard error."""
    for name, text in FAKE.items():
        (tmp_path / "mlflow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mlflow" / name).write_text(text)

    def run(code: str, **environment: str) -> tuple[list[str], list[str]]:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")},
            "MLFLOW_RUN_ID": "attempt",
            "MLFLOW_TRACKING_URI": "ours",
            "LADDER_ATTEMPT": "file",
            "PYTHONPATH": f"{HOOK}{os.pathsep}{tmp_path}",
            **environment,
        }
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        return done.stdout.splitlines(), done.stderr.splitlines()

    return run


@pytest.mark.parametrize(
    ("code", "out", "said"),
    [
        ("print(mlflow.set_experiment('mine')); mlflow.set_experiment('mine')", ["of the attempt"], 1),
        ("print(mlflow.set_experiment(experiment_name='mine'))", ["of the attempt"], 1),
        ("mlflow.set_tracking_uri('theirs'); print(mlflow.get_tracking_uri())", ["ours"], 1),
        ("mlflow.set_tracking_uri('ours'); print(mlflow.get_tracking_uri())", ["ours"], 0),
        ("run = mlflow.start_run(run_name='x'); print(run.info.run_id, run.name)", ["attempt None"], 0),
        ("run = mlflow.start_run(None, '7', 'x'); print(run.info.run_id, run.name)", ["attempt None"], 0),
        ("print(mlflow.start_run(experiment_id='7').info.run_id)", ["attempt"], 0),
        ("print(mlflow.start_run('other').info.run_id)", ["other"], 0),
        (OTHER_STORE, ["attempt ours"], 1),
        (SECOND_RUN, ["new of the attempt {'mlflow.parentRunId': 'attempt'}"], 1),
        ("mlflow.start_run(); print(mlflow.start_run(nested=True).info.run_id)", ["new"], 0),
        (
            "c = mlflow.MlflowClient(); print(c.create_run('7').info.run_id, c.create_run('7').info.run_id)",
            ["attempt new"],
            1,
        ),
        (
            "c = mlflow.MlflowClient('http://theirs'); print(c.create_run('7').info.run_id, c.tracking_uri)",
            ["attempt ours"],
            1,
        ),
        ("mlflow.start_run(); print(mlflow.MlflowClient('http://theirs').create_run('7').info.run_id)", ["new"], 0),
        ("print(mlflow.MlflowClient('http://theirs').tracking_uri)", ["http://theirs"], 0),
        ("print(mlflow.MlflowClient('ours').tracking_uri)", ["ours"], 0),
        ("print(mlflow.MlflowClient(tracking_uri='logs/mlruns').tracking_uri)", ["ours"], 1),
        ("print(mlflow.MlflowClient('file:///logs').create_run('7').info.run_id)", ["attempt"], 2),
        ("print(mlflow.MlflowClient('sqlite:///their.db').tracking_uri)", ["sqlite:///their.db"], 0),
    ],
)
def test_where_the_metrics_go(code: str, out: list[str], said: int, say: object) -> None:
    printed, told = say(f"import mlflow\n{code}")  # type: ignore[operator]
    assert printed == out
    assert len(told) == said and all(line.startswith("ladder: ") and "trainer.redirect" in line for line in told)


@pytest.mark.parametrize("missing", ["MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "LADDER_ATTEMPT"])
def test_outside_of_an_attempt_nothing_is_changed(missing: str, say: object) -> None:
    printed, told = say("import mlflow; print(mlflow.set_experiment('mine'))", **{missing: ""})  # type: ignore[operator]
    assert (printed, told) == (["mine"], [])


def test_a_sitecustomize_of_the_users_own_is_executed_and_no_trace_is_left(tmp_path: Path, say: object) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; print('theirs'); sys.theirs = 1\n")
    traces = "any('foreign' in each for each in sys.path)"
    code = f"import sys, sitecustomize; print(sys.theirs, sitecustomize.__file__, {traces})"
    printed, _ = say(code)  # type: ignore[operator]
    assert printed == ["theirs", f"1 {tmp_path / 'sitecustomize.py'} False"]


def test_another_mlflow_breaks_nothing(tmp_path: Path, say: object) -> None:
    (tmp_path / "mlflow" / "tracking" / "fluent.py").write_text("set_experiment = start_run = active_run = None\n")
    assert say("import mlflow; print(1)") == (["1"], [])  # type: ignore[operator]


def test_only_a_script_is_redirected_and_only_if_it_may_be() -> None:
    script = ExperimentConfig().with_values({"trainer.command": ["a"]})
    assert redirected(ExperimentConfig(), {}) == {}
    assert redirected(script.with_values({"trainer.redirect": False}), {}) == {}
    assert redirected(script, {}) == {"PYTHONPATH": str(HOOK)}
    assert redirected(script, {"PYTHONPATH": "/theirs"}) == {"PYTHONPATH": f"{HOOK}:/theirs"}


SCRIPT = """
import mlflow
mlflow.set_tracking_uri("sqlite:///own.db")
mlflow.set_experiment("mine")
with mlflow.start_run(run_name="x"):
    mlflow.log_metric("loss", 0.5, step=3)
with mlflow.start_run():
    mlflow.log_metric("loss", 0.25, step=4)
"""


def test_with_mlflow_itself(empty_store: Store, tmp_path: Path) -> None:
    parent = empty_store.start_parent(small_config())
    how = {"rung": "v3", "number": 0, "diff": {}, "warm_start": None, "reason": ""}
    run_id = empty_store.start_attempt(parent, small_config(), **how)  # type: ignore[arg-type]
    variables = {
        **os.environ,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_TRACKING_URI": empty_store.uri,
        "LADDER_ATTEMPT": "file",
        "PYTHONPATH": str(HOOK),
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert empty_store.latest(run_id)["loss"][:2] == (3, 0.5) and not (tmp_path / "own.db").exists()
    (nested,) = empty_store.others_since(0)
    assert nested.parent_id == run_id and nested.metrics["loss"] == 0.25
    assert done.stderr.count("ladder: ") == 3
