"""A study's file: what is refused before anything starts, and what a plan contains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from pipeline.cli import main
from pipeline.tuning.storage import shown
from pipeline.tuning.study import StudyPlan, load_study

SHIPPED = Path(__file__).parent.parent.parent / "experiments" / "study.yaml"
RATE = "study.space.training.learning_rate"
BAD = {
    "no study": ({"study": None}, [], ["study: is missing", "study.space"]),
    "no space": ({"study.space": {}}, [], ["study.space"]),
    "misspelt key": ({}, ["study.trails=3"], ["study.trails", "nearest valid: study.trials"]),
    "misspelt key of a range": ({}, [f"{RATE}.flaot=[1,2]"], [f"{RATE}.flaot", "unknown key"]),
    "key that is not there": (
        {},
        ["study.space.training.learning_rat.float=[1,2]"],
        ["study.space.training.learning_rat: unknown key", "nearest valid: training.learning_rate"],
    ),
    "parameter without default": (
        {},
        ["study.space.trainer.parameters.x.float=[1,2]"],
        ["trainer.parameters.x", "no default"],
    ),
    "misspelt key of the experiment": ({}, ["training.gama=1"], ["training.gama", "nearest valid: training.gamma"]),
    "trials that go on after a healthy attempt": (
        {},
        ["ladder.until=end"],
        ["ladder.until", "allowed: healthy, not 'end'"],
    ),
    "empty range": ({}, [f"{RATE}.float=[0.1,0.1]"], [f"{RATE}.float", "empty range", "[0.1, 0.1]"]),
    "range upside down": ({}, [f"{RATE}.float=[0.2,0.1]"], ["empty range", "[0.2, 0.1]"]),
    "log from zero": ({}, [f"{RATE}.float=[0,0.1]"], [f"{RATE}.float", "above 0"]),
    "one choice": ({}, ["study.space.training.alpha_entropy_of.choices=[load]"], ["choices", "two different"]),
    "null": (
        {},
        ["study.space.trainer.parameters.a.choices=[null,1]"],
        ["a.choices: each must be a number, a text", "None"],
    ),
    "lists": (
        {},
        ["study.space.trainer.parameters.a.choices=[[1,2],[3]]"],
        ["a.choices: each must be a number, a text"],
    ),
    "two kinds at once": ({}, [f"{RATE}.int=[1,2]"], [RATE, "exactly one of float, int and choices"]),
    "no range": ({"study.space": {"training.gamma": None}}, [], ["study.space.training.gamma"]),
    "range of words": ({}, [f"{RATE}.float=[a,b]"], [f"{RATE}.float", "number", "'a'"]),
    "three ends": ({}, [f"{RATE}.float=[1,2,3]"], [f"{RATE}.float"]),
    "value that the key refuses": (
        {},
        ["study.space.training.gamma.float=[0.9,1.1]"],
        ["study.space.training.gamma", "less than or equal to 1", "1.1"],
    ),
    "choice that the key refuses": (
        {},
        ["study.space.training.alpha_entropy_of.choices=[load,smaple]"],
        ["alpha_entropy_of", "'smaple'", "nearest: sample"],
    ),
    "fractions for a count": (
        {},
        ["study.space.training.ppo_epochs.float=[1.5,2.5]"],
        ["training.ppo_epochs", "integer"],
    ),
    "the seed": ({}, ["study.space.training.seed.int=[1,5]"], ["training.seed", "study.seeds"]),
    "the device": ({}, ["study.space.training.device.choices=[cpu,cuda]"], ["training.device", "cannot be tuned"]),
    "the root": ({}, ["study.space.tracking.root.choices=[a,b]"], ["tracking.root", "cannot be tuned"]),
    "no trial": ({}, ["study.trials=0"], ["study.trials", "greater than or equal to 1"]),
    "unknown sampler": ({}, ["study.sampler=tep"], ["study.sampler", "'tep'", "nearest: tpe", "qmc"]),
    "unknown option of the sampler": (
        {},
        ["study.sampler_options.n_startup=3"],
        ["study.sampler_options", "n_startup", "study.sampler=tpe"],
    ),
    "seed of the sampler": ({}, ["study.sampler_options.seed=3"], ["study.seed"]),
    "option of the pruner out of range": (
        {},
        ["study.pruner=percentile", "study.pruner_options={percentile: 200}"],
        ["study.pruner_options", "200"],
    ),
    "option of the pruner that is missing": (
        {},
        ["study.pruner=percentile", "study.pruner_options=null"],
        ["study.pruner_options"],
    ),
    "direction": ({}, ["study.objective.direction=up"], ["study.objective.direction", "'up'", "maximize"]),
    "no URL": ({}, ["study.storage=optuna.db"], ["study.storage", "not a URL", "sqlite:///FILE"]),
    "another database": (
        {},
        ["study.storage=mysql://u:secret@h/d"],
        ["study.storage", "mysql://u:***@h/d", "postgresql"],
    ),
    "memory": ({}, ["study.storage='sqlite://'"], ["study.storage", "a file is needed"]),
    "driver that is not there": (
        {},
        ["study.storage=postgresql+asyncpgg://h/d"],
        ["study.storage", "psycopg2-binary"],
    ),
    "one seed to validate on": ({}, ["--validate=1"], ["--validate", "two fresh seeds"]),
}


@pytest.mark.parametrize(("changes", "words", "expected"), BAD.values(), ids=BAD)
def test_bad_input(
    changes: dict[str, Any],
    words: list[str],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command exits with 2 and one line; nothing is started or written."""
    monkeypatch.setitem(sys.modules, "pipeline.tuning.tune", None)  # the module that would start something
    content = yaml.safe_load(SHIPPED.read_text())
    content["study"]["base"] = str(SHIPPED.with_name("score.yaml"))
    for key, value in changes.items():
        *path, last = key.split(".")
        node = content
        for part in path:
            node = node[part]
        node[last] = value
    path, root = tmp_path / "study.yaml", tmp_path / "root"
    path.write_text(yaml.safe_dump(content))
    assert main(["tune", str(path), *words, f"tracking.root={root}"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and not root.exists()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ladder: "), lines
    assert all(part in lines[0] for part in expected), lines[0]


def test_experiment_without_a_study_is_not_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(SHIPPED.with_name("quickstart.yaml"))]) == 2
    assert "study: is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "check"])
def test_study_is_not_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(SHIPPED)]) == 2
    assert capsys.readouterr().err.endswith("a study's file is for `ladder tune`\n")


def test_ranges_by_key_with_dots_and_by_override(tmp_path: Path) -> None:
    """An override reaches a range of the file, whether the file writes it with dots or nested."""
    path = tmp_path / "study.yaml"
    space = {
        "training.learning_rate": {"float": [1e-5, 1e-3], "log": True},
        "training": {"ppo_epochs": {"int": [1, 9]}},
    }
    path.write_text(yaml.safe_dump({"study": {"space": space}}))
    words = [
        "study.space.training.learning_rate.float=[1e-4,1e-2]",
        "study.space.training.alpha_entropy_of.choices=[load,sample]",
    ]
    plan = load_study(path, [*words, "training.gamma=0.9", "study.workers=3"])
    assert plan.study.distributions == {
        "training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "training.ppo_epochs": IntDistribution(1, 9),
        "training.alpha_entropy_of": CategoricalDistribution(("load", "sample")),
    }
    assert plan.config.training.gamma == 0.9 and plan.study.workers == 3
    assert plan.default == {
        "training.learning_rate": 1e-4,
        "training.ppo_epochs": 4,
        "training.alpha_entropy_of": "load",
    }
    assert plan.configured({"training.ppo_epochs": 7}).training.ppo_epochs == 7
    again = tmp_path / "again.yaml"
    again.write_text(plan.to_yaml("sqlite:///somewhere.db"))
    assert load_study(again) == plan.model_copy(
        update={"study": plan.study.model_copy(update={"storage": "sqlite:///somewhere.db"})}
    )
    assert StudyPlan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_shipped_study_names_the_coefficients() -> None:
    """They are entropy, α-entropy, load balance, diversity, learning rate, clip ratio, shaping; defaults are inside."""
    plan = load_study(SHIPPED)
    wanted = {
        "entropy_coef",
        "alpha_entropy_coef",
        "load_balance_coef",
        "diversity_coef",
        "learning_rate",
        "clip_ratio",
    }
    assert wanted <= {key.rpartition(".")[2] for key in plan.study.space}
    assert any(key.startswith("environment.shaping.") for key in plan.study.space)
    assert all(dimension.contains(plan.default[key]) for key, dimension in plan.study.space.items())


def test_what_may_change_when_a_study_is_continued() -> None:
    begun = load_study(SHIPPED)
    words = ["study.trials=99", "study.hours=3", "study.workers=1", "study.sampler_options.n_startup_trials=9"]
    words += ["study.ladder=true"]  # what the ladder saves has no objective
    words += [f"{RATE}.float=[1e-5,1e-2]", "tracking.root=x", "budget.hours=1"]
    assert load_study(SHIPPED, words).incomparable(begun) is None
    for word in ("study.seeds=2", "training.steps=5", f"{RATE}.log=false", "health.rules=seed"):
        key = word.partition("=")[0].removesuffix(".log")
        assert key in (load_study(SHIPPED, [word]).incomparable(begun) or ""), word


def test_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"
