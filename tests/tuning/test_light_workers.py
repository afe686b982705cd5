"""What a study's workers load."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.launchers.local import PRELOADED
from pipeline.tuning.tune import Tuning
from tests.conftest import small_config


@pytest.mark.parametrize(("kind", "torch"), [("local", True), ("slurm", False)])
def test_workers_whose_trainers_are_jobs_load_no_torch(kind: Any, torch: bool) -> None:
    plan = SimpleNamespace(config=small_config(launcher__kind=kind))
    modules = Tuning._preloaded(SimpleNamespace(plan=plan))  # type: ignore[arg-type]
    assert set(PRELOADED).issubset(modules) == torch and "pipeline.tuning.experiment" in modules
