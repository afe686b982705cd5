"""The examples around other libraries: each fails in its own way of training, and its ladder cures it.

Heavy: each is two processes that import torch. Those whose library is missing skip; LADDER_EXAMPLES_PYTHON names an
interpreter that has it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.compare.from_store import load
from pipeline.experiment_file import load_experiment
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.end_to_end.conftest import REPOSITORY

EXAMPLES = {
    "sb3": ("stable_baselines3", "tensorboard"),
    "cleanrl_like": ("torch", "tensorboard", "gymnasium"),
    "lightning_model": ("lightning",),
    "huggingface": ("transformers", "accelerate", "tensorboard"),
}


def interpreter(*modules: str) -> str:
    """The Python that has these modules; without one the test skips."""
    if all(importlib.util.find_spec(module) for module in modules):
        return sys.executable
    if other := os.environ.get("LADDER_EXAMPLES_PYTHON"):
        code = f"import {', '.join(modules)}"
        if subprocess.run([other, "-c", code], capture_output=True, check=False).returncode == 0:
            return other
    pytest.skip(f"needs {', '.join(modules)} (pip install, or LADDER_EXAMPLES_PYTHON)")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_ladder_cures_what_the_example_breaks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a checkpoint that was written before the training broke."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    words = yaml.safe_load(Path(f"examples/{name}.yaml").read_text())["trainer"]["command"]
    words[0] = interpreter(*EXAMPLES[name])
    command = ",".join(f"'{word}'" for word in words)
    assert main(["run", f"examples/{name}.yaml", f"tracking.root={tmp_path}", f"trainer.command=[{command}]"]) == 0
    night = load(root=tmp_path)
    assert night.attempts.verdict.tolist() == ["gradient_explosion", "healthy"]
    store = Store(default_uri(tmp_path), tmp_path)
    first, second = store.attempts(store.parents()[0])
    onset = first.verdict.evidence[0].onset_step if first.verdict is not None else None
    assert onset is not None and second.warm_start is not None and 0 < second.warm_start.episode < onset
    if name != "huggingface":  # it logs nothing that rises
        assert night.attempts.score[1] > 1.5 * night.attempts.score[0] or night.attempts.score[1] > 0.9


@pytest.mark.parametrize("name", [*EXAMPLES, "plain"])
def test_the_examples_are_short(name: str) -> None:
    load_experiment(REPOSITORY / f"examples/{name}.yaml")
    script = (REPOSITORY / f"examples/{name}.py").read_text().splitlines()
    lines = (REPOSITORY / f"examples/{name}.yaml").read_text().splitlines()
    assert len(script) <= 80
    assert name == "plain" or len([line for line in lines if not line.startswith("#")]) <= 10
