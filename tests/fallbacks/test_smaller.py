"""What a retry after an out-of-memory has less of."""

from __future__ import annotations

from typing import Any

import pytest

from fallbacks.smaller import smaller
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate

KEY = "trainer.parameters.batch_size"


def script(less: Any, **parameters: Any) -> ExperimentConfig:
    trainer = {"command": ["train"], "parameters": parameters, "on_out_of_memory": less}
    return validate(merge({"trainer": trainer}, [], "x"), "x")


def test_this_projects_trainer_has_half_as_many_games() -> None:
    once = smaller(ExperimentConfig())
    assert (once.environment.num_envs, once.training.workers) == (8, 2)
    for _ in range(5):
        once = smaller(once)
    assert (once.environment.num_envs, once.training.workers) == (1, 1)


def test_a_script_has_what_its_user_says() -> None:
    assert smaller(script(None, batch_size=64)) == script(None, batch_size=64)
    halved = smaller(script({"scale": {KEY: 0.5}}, batch_size=65))
    assert halved.trainer.parameters == {"batch_size": 32} and smaller(halved).trainer.parameters["batch_size"] == 16
    assert smaller(script({"scale": {KEY: 0.1}}, batch_size=2)).trainer.parameters == {"batch_size": 1}
    assert smaller(script({"scale": {"trainer.parameters.lr": 0.5}}, lr=0.1)).trainer.parameters == {"lr": 0.05}
    less = {"set": {KEY: 8}, "scale": {"trainer.parameters.accumulate": 2}}
    assert smaller(script(less, batch_size=64, accumulate=1)).trainer.parameters == {"batch_size": 8, "accumulate": 2}


@pytest.mark.parametrize(
    ("less", "expected"),
    [
        ({}, "trainer.on_out_of_memory: must have set"),
        ({"scale": {KEY: 0}}, "trainer.on_out_of_memory.scale"),
        ({"scale": {"trainer.parameters.batch": 0.5}}, "trainer.parameters.batch is no number, but None"),
        ({"scale": {"trainer.parameters.name": 0.5}}, "trainer.parameters.name is no number, but 'x'"),
        ({"set": {"trainr.x": 0.5}}, "trainr.x"),
    ],
)
def test_refused_in_one_line(less: Any, expected: str) -> None:
    with pytest.raises(BadInput) as refusal:
        script(less, batch_size=64, name="x")
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)
