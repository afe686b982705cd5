"""The base of a study and what a trial shortens in it: what is refused, what each comes to, and tuned.yaml."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from pipeline.cli import main
from pipeline.experiment_file import load_experiment, load_experiments
from pipeline.preflight import not_accepted
from pipeline.tuning.results import tuned_yaml
from pipeline.tuning.study import StudyPlan, load_study
from pipeline.tuning.worker import Assignment

RATE = "training.learning_rate"
SPACE = {RATE: {"float": [1e-4, 1e-2], "log": True}}
SCORE = Path(__file__).parent.parent.parent / "experiments" / "score.yaml"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a base and a study beside it; returns the study's file. `beside`: its sections beside `study`."""

    def files(
        base: dict[str, Any] | None, study: dict[str, Any] | None = None, beside: dict[str, Any] | None = None
    ) -> Path:
        if base is not None:
            (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
        path = tmp_path / "study.yaml"
        section = {"base": "base.yaml", "space": SPACE, **(study or {})}
        path.write_text(yaml.safe_dump({"study": section, **(beside or {})}))
        return path

    return files


def tuned(plan: StudyPlan, params: dict[str, Any], folder: Path) -> Path:
    trial = optuna.trial.create_trial(
        params=params, distributions={key: plan.study.distributions[key] for key in params}, value=3.0
    )
    trial.number = 0
    path = folder / "tuned.yaml"
    path.write_text(tuned_yaml(plan, trial, [trial], "a gain is not shown"))
    return path


BASE = {"experiment": {"name": "mine"}, "training": {"steps": 1000}, "preflight": {"accept": ["learning_rate"]}}
BAD: dict[str, tuple[dict[str, Any] | None, dict[str, Any], list[str], list[str]]] = {
    "misspelt key of a trial": (
        BASE,
        {"trial": {"training.stepz": 8}},
        [],
        ["study.trial: training.stepz: unknown key", "nearest valid: training.steps"],
    ),
    "misspelt key of a trial, nested": (BASE, {"trial": {"trainin": {"steps": 8}}}, [], ["study.trial: trainin: unkn"]),
    "misspelt on the command line": (BASE, {}, ["study.trial.training.stpes=8"], ["study.trial: training.stpes"]),
    "value of a trial": (BASE, {"trial": {"training.steps": "many"}}, [], ["study.trial: training.steps", "'many'"]),
    "a list for a section": (BASE, {"trial": {"training": [1]}}, [], ["study.trial: training: must be a mapping"]),
    "a number for a section": (BASE, {"trial": {"training": 1}}, [], ["study.trial: training", "not 1"]),
    "a mapping for a list": (BASE, {"trial": {"ladder.rungs.a": 1}}, [], ["study.trial: ladder.rungs: must be a list"]),
    "no value": (BASE, {"trial": {"training.steps": "???"}}, [], ["study.trial: training.steps: a value is missing"]),
    "no override": (BASE, {}, ["study.trial.training.steps"], ["study.trial.training.steps: not an override"]),
    "sixties": (BASE, {}, ["study.trial.training.steps=12:30"], ["study.trial.training.steps", "in sixties"]),
    "number of trials": (BASE, {"trial": 20}, [], ["study.trial: is what a trial changes", "20", "study.trials"]),
    "number on the command line": (BASE, {}, ["study.trial=20"], ["study.trial: is what a trial", "study.trials"]),
    "a list": (BASE, {"trial": ["training.steps"]}, [], ["study.trial: is what a trial changes"]),
    "a trial as trials": (
        BASE,
        {"trials": {"training.steps": 8}},
        [],
        ["study.trials: is the number of trials", "study.trial"],
    ),
    "nested under trials": (BASE, {}, ["study.trials.training.steps=8"], ["study.trials: is the number of trials"]),
    "tuned and shortened": (
        BASE,
        {"trial": {RATE: 0.1}},
        [],
        [f"study.trial.{RATE}: is tuned", f"study.space.{RATE}", "in one of them"],
    ),
    "tuned and shortened to what it is": (BASE, {"trial": {RATE: 1e-4}}, [], [f"study.trial.{RATE}: is tuned"]),
    "tuned by following": (
        {**BASE, "training": {"learning_rate": "${training.clip_ratio}"}},
        {"trial": {"training.clip_ratio": 0.01}},
        [],
        [f"study.trial.{RATE}: is tuned"],
    ),
    "followed by another key": (
        {**BASE, "training": {"clip_ratio": "${training.learning_rate}"}},
        {},
        [],
        [f"study.space.{RATE}: training.clip_ratio follows it", "value of its own"],
    ),
    "interpolation of nothing": (BASE, {"trial": {"training.steps": "${nothing}"}}, [], ["study.trial", "nothing"]),
    "seed of a trial": (BASE, {"trial": {"training.seed": 3}}, [], ["study.trial.training.seed", "study.seeds"]),
    "root of a trial": (BASE, {"trial": {"tracking.root": "x"}}, [], ["study.trial.tracking.root", "cannot change"]),
    "sections of a trial": (BASE, {"trial": {"experiment": {"name": "x"}}}, [], ["study.trial.experiment.name"]),
    "every rung in a trial": (BASE, {"trial": {"ladder.until": "end"}}, [], ["study.trial: ladder.until"]),
    "every rung of a base": ({**BASE, "ladder": {"until": "end"}}, {}, [], ["ladder.until", "allowed: healthy"]),
    "parameter that is not there": (
        {**BASE, "trainer": {"command": ["true"], "parameters": {"steps": 5}}},
        {"trial": {"trainer.parameters.stpes": 3}},
        [],
        ["study.trial.trainer.parameters.stpes", "no such key"],
    ),
    "no such base": (None, {"base": "bsae.yaml"}, [], ["study.base", "bsae.yaml: no such file"]),
    "a folder": (BASE, {"base": "."}, [], ["study.base", "is a folder"]),
    "a number": (BASE, {"base": 3}, [], ["study.base", "an experiment's YAML file", "3"]),
    "a base with a study": ({**BASE, "study": {"trials": 3}}, {}, [], ["study.base", "has a section `study`"]),
    "its own file": (BASE, {"base": "study.yaml"}, [], ["study.base", "is the study's own file"]),
    "no experiment": ({"training": {"stepz": 3}}, {}, [], ["base.yaml: training.stepz", "nearest valid"]),
    "a base of a list": (None, {"base": "list.yaml"}, [], ["study.base", "list.yaml", "must be a mapping"]),
    "a list of seeds with a word": ({**BASE, "training": {"seed": [1, "two"]}}, {}, [], ["training.seed", "'two'"]),
    "a list of no seeds": ({**BASE, "training": {"seed": []}}, {}, [], ["training.seed"]),
}


@pytest.mark.parametrize(("base", "study", "words", "expected"), BAD.values(), ids=BAD)
def test_bad_input(
    base: dict[str, Any] | None,
    study: dict[str, Any],
    words: list[str],
    expected: list[str],
    write: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command exits with 2 and one line; nothing is started or written."""
    monkeypatch.setitem(sys.modules, "pipeline.tuning.tune", None)  # the module that would start something
    (tmp_path / "list.yaml").write_text("- 1\n")
    path, root = write(base, study), tmp_path / "root"
    assert main(["tune", str(path), *words, f"tracking.root={root}"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and not root.exists()
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ladder: "), lines
    assert all(part in lines[0] for part in expected), lines[0]


def test_trial_is_the_base_shortened_and_tuned_is_the_base_with_the_coefficients(write: Write, tmp_path: Path) -> None:
    base = {
        "experiment": {"name": "mine", "description": "own"},
        "training": {"steps": 1000, "episodes": "${training.steps}", "learning_rate": 6e-4, "score_window": 7},
        "phases": {"warmup_until": 9, "transition": {"routing": "sparsemax", "learning_rate_factor": 1.0}},
        "preflight": {"accept": ["learning_rate"]},
    }
    trial = {"training.steps": 80, "phases": {"warmup_until": 1, "transition.learning_rate_factor": 0.7}}
    beside = {"experiment": {"name": "study of mine"}, "training": None, "environment": {"num_envs": 8}}
    path = write(base, {"trial": trial}, beside)
    plan = load_study(path, ["study.trial.phases.warmup_until=2", "training.gamma=0.9"])
    assert plan.name == "study of mine"
    for config, steps, warm_up, factor in ((plan.config, 1000, 9, 1.0), (plan.shortened, 80, 2, 0.7)):
        assert (config.training.steps, config.training.episodes) == (steps, steps)  # it follows
        assert (config.phases.warmup_until, config.phases.transition.learning_rate_factor) == (warm_up, factor)
        assert (config.environment.num_envs, config.training.gamma, config.training.score_window) == (8, 0.9, 7)
    assert set(plan.study.trial) == {
        *("training.steps", "training.episodes", "phases.warmup_until", "phases.transition.learning_rate_factor")
    }
    params = {RATE: 2e-3}
    of_kind = {"url": "", "study_name": "s", "parent": "p", "deadline": 0.0, "plan": plan, "best": params}
    assert Assignment(kind="trial", **of_kind).configure(params) == plan.shortened.with_values(params)
    validation = Assignment(kind="validation", **of_kind)
    assert validation.configure({"configuration": "tuned"}) == plan.config.with_values(params)
    assert validation.configure({"configuration": "default"}) == plan.config

    file = tuned(plan, params, tmp_path)
    best = load_experiment(file)
    assert best.training.steps == 1000 and best.training.learning_rate == 2e-3 and best.experiment.name == "mine"
    assert best.experiment.description == "own"
    assert best.with_values({"experiment": plan.config.experiment.model_dump()}) == plan.tuned(params)
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    for part in ("base.yaml", "'study of mine'", "trial 0 of 1, score_window 3", "training.steps=80", "0.0006 → 0.002"):
        assert any(part in line for line in head), part
    assert head[-1] == "# validation: a gain is not shown"


def test_without_a_base_the_file_itself_is_the_base(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump({"study": {"space": SPACE, "trial": {"training.steps": 8}}, "training": {"steps": 90}})
    )
    plan = load_study(path)
    assert (plan.config.training.steps, plan.shortened.training.steps) == (90, 8)
    assert load_experiment(tuned(plan, {RATE: 1e-3}, tmp_path)).training.steps == 90
    assert load_study(path, ["study.trial.training.steps=90"]).shortened == plan.config


def test_plan_can_be_kept_and_read_again(write: Write, tmp_path: Path) -> None:
    """As JSON by the workers, and as one file that needs no base."""
    trainer = {"command": ["true", "{parameters.steps}"], "parameters": {"steps": 5, "more": {"a": 1, "b": 2}}}
    path = write({"trainer": trainer}, {"trial": {"trainer.parameters": {"steps": 2, "more.b": 3}}})
    plan = load_study(path)
    assert plan.shortened.trainer.parameters == {"steps": 2, "more": {"a": 1, "b": 3}}
    assert StudyPlan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan
    alone = tmp_path / "elsewhere" / "alone.yaml"
    alone.parent.mkdir()
    alone.write_text(plan.to_yaml("sqlite:///a.db"))
    again = load_study(alone)
    assert again.incomparable(plan) is None and (again.config, again.shortened) == (plan.config, plan.shortened)


def test_sections_beside_a_study_with_a_base_are_checked(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.tuning.tune", None)
    for beside, says in (
        ({"training": [1]}, "study.yaml: training: must be a mapping"),
        ({"training": {"stepz": 1}}, "study.yaml: training.stepz: unknown key"),
        ({"trainign": None}, "study.yaml: trainign: unknown key"),
        ({"training": {"steps": "${nothing}"}}, "study.yaml: training.steps: Interpolation key 'nothing' not found"),
    ):
        assert main(["tune", str(write(BASE, {}, beside))]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert says in line
    assert load_study(write(BASE, {"trial": {"training": {}}}, {"training": None})).study.trial == {}


def test_base_beside_the_study_or_in_the_working_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one beside it comes first, wherever the command is given."""
    path = write({"training": {"steps": 5}})
    other = tmp_path / "other"
    (other / "experiments").mkdir(parents=True)
    for file, steps in (("base.yaml", 6), ("experiments/there.yaml", 7)):
        (other / file).write_text(yaml.safe_dump({"training": {"steps": steps}}))
    monkeypatch.chdir(other)
    assert load_study(path).config.training.steps == 5
    assert load_study(path, ["study.base=experiments/there.yaml"]).config.training.steps == 7
    assert load_study(path, [f"study.base={other / 'base.yaml'}"]).config.training.steps == 6


def test_head_of_tuned_is_a_comment_whatever_the_values_are(write: Write, tmp_path: Path) -> None:
    trainer = {"command": ["true"], "parameters": {"text": "a", "kind": "b"}}
    space = {"trainer.parameters.kind": {"choices": ["b", "c\nexperiment: d"]}}
    path = write({"trainer": trainer}, {"space": space, "trial": {"trainer.parameters.text": "e\nseed: 3"}})
    params = {"trainer.parameters.kind": "c\nexperiment: d"}
    best = load_experiment(tuned(load_study(path), params, tmp_path))
    assert best.trainer.parameters == {"text": "a", "kind": "c\nexperiment: d"}


def test_list_of_seeds_stays_in_tuned(write: Write, tmp_path: Path) -> None:
    plan = load_study(write({"training": {"seed": [4, 9], "steps": 50}}, {"trial": {"training.steps": 5}}))
    assert plan.config.training.seed == 4 and plan.base_seeds == (4, 9)
    file = tuned(plan, {RATE: 1e-3}, tmp_path)
    assert [config.training.seed for config in load_experiments(file)] == [4, 9]
    assert not load_study(write({"training": {"seed": [4, 9]}}), ["training.seed=3"]).base_seeds


def test_tuned_passes_the_checklist_as_the_base_does(write: Write, tmp_path: Path) -> None:
    """It accepts what its coefficients add, and nothing that the base itself would be refused for."""
    space, params = {"training.max_grad_norm": {"float": [0.5, 5.0]}}, {"training.max_grad_norm": 4.0}
    plan = load_study(write(yaml.safe_load(SCORE.read_text()), {"space": space}))
    assert not not_accepted(load_experiment(tuned(plan, params, tmp_path)))
    plan = load_study(write({"training": {"learning_rate": 6e-4}}, {"space": space}))
    assert len(not_accepted(plan.config)) == 1
    assert not_accepted(load_experiment(tuned(plan, params, tmp_path))) == [
        line.replace("[learning_rate]", "[learning_rate, clipping]") for line in not_accepted(plan.config)
    ]


def test_changed_base_is_refused_when_a_study_is_continued(write: Write) -> None:
    study = {"trial": {"training.steps": 5}}
    begun = load_study(write({"training": {"steps": 50}}, study))
    assert load_study(write({"training": {"steps": 50}, "budget": {"hours": 3}}, study)).incomparable(begun) is None
    longer = load_study(write({"training": {"steps": 60}}, study))
    assert longer.incomparable(begun) == "training.steps was 50, now 60"
    shorter = load_study(write({"training": {"steps": 50}}, {"trial": {"training.steps": 4}}))
    assert shorter.incomparable(begun) == "training.steps was 5 in a trial, now 4"
    # One that was begun without base and trial has none of these keys.
    without = {"base_experiment": True, "base_seeds": True, "study": {"base", "trial"}}
    old = StudyPlan.model_validate(begun.model_dump(by_alias=True, exclude=without))
    assert old.shortened == old.config


def test_coefficients_that_do_not_fit_the_base_are_no_trial(write: Write) -> None:
    """A trial's schedule allows them, the base's does not: tuned.yaml could not be run."""
    space = {"phases.transition_until": {"int": [50, 500]}}
    base = {"phases": {"warmup_until": 100, "transition_until": 300}}
    path = write(base, {"space": space, "trial": {"phases.warmup_until": 10}})
    with pytest.raises(ValueError, match=r"phases\.transition_until"):
        load_study(path)
