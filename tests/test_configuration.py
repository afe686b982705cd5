"""Bad input: exit code 2 and one line that names the file or the key; nothing started, nothing written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config import RUNGS, CustomRung, ExperimentConfig, TrainerSection, difference, flatten
from pipeline.errors import BadInput
from pipeline.experiment_file import load_experiment, load_experiments, merge, validate, with_overrides
from pipeline.preflight import preflight, too_short

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
QUICKSTART = str(EXPERIMENTS / "quickstart.yaml")

BAD = {
    "misspelt key": (
        ["training.learning_rat=1e-4"],
        ["training.learning_rat", "nearest valid: training.learning_rate"],
    ),
    "misspelt section": (["traning.seed=1"], ["traning", "nearest valid: training"]),
    "right key, wrong section": (["training.max_episode_steps=5"], ["nearest valid: environment.max_episode_steps"]),
    "out of range": (["training.gamma=2"], ["training.gamma", "less than or equal to 1", "2"]),
    "not a number": (["training.episodes=many"], ["training.episodes", "integer", "'many'"]),
    "a number as text": (["training.learning_rate='1'"], ["training.learning_rate", "number"]),
    "not finite": (["training.learning_rate=nan"], ["training.learning_rate"]),
    "nothing": (["training.learning_rate="], ["training.learning_rate", "None"]),
    "a value for a section": (["training=3"], ["training", "3"]),
    "unknown choice": (["health.rules=v4"], ["health.rules", "'v4'", "allowed: v3, seed"]),
    "unknown rung": (["ladder.rungs=[v3,freze_gat]"], ["ladder.rungs", "'freze_gat'", "nearest: freeze_gat"]),
    "no rung": (["ladder.rungs=[]"], ["ladder.rungs"]),
    "rung that sets no key": (["ladder.rungs=[{name: x, set: {policy.foo: 1}}]"], ["policy.foo"]),
    "rung that changes nothing": (
        ["ladder.rungs=[v3,{name: nothing, set: {}}]"],
        ["ladder.rungs", "set: the rung nothing sets no key"],
    ),
    "fewer remedies than none": (["ladder.remedies=-1"], ["ladder.remedies", "greater than or equal to 0", "-1"]),
    "unknown end of the ladder": (
        ["ladder.until=fairness"],
        ["ladder.until", "'fairness'", "allowed: healthy, end"],
    ),
    "part of a remedy": (["ladder.remedies=1.5"], ["ladder.remedies", "integer", "1.5"]),
    "unknown rule": (["health.override.laod.window=3"], ["health.override.laod", "load"]),
    "unknown field of a rule": (["health.override.load.windwo=3"], ["health", "windwo"]),
    "unknown environment": (["environment.id=NetHackScor-v0"], ["environment.id", "nearest: NetHackScore-v0"]),
    "unknown role": (["environment.character=xyz-hum"], ["environment.character", "xyz"]),
    "phases out of order": (["phases.transition_until=5"], ["phases.transition_until", "warmup_until=100", "5"]),
    "even crop": (["environment.crop_size=8"], ["environment.crop_size", "odd"]),
    "heads do not divide": (["policy.hidden_size=66"], ["policy.hidden_size", "multiple of gat_heads=4"]),
    "expert twice": (["policy.experts=[a,a]"], ["policy.experts", "differ"]),
    "experts that a rung needs": (["policy.experts=[a,b]"], ["policy.experts", "two_experts"]),
    "unknown fault": (["faults=[{kind: crsh, at_update: 1}]"], ["faults.0.kind", "'crsh'", "nearest: crash"]),
    "no override": (["training.seed"], ["training.seed", "key.sub=value"]),
}


FOREIGN = ["trainer.command=[python,train.py]"]


def foreign(*words: str) -> ExperimentConfig:
    """An experiment of nothing but a script."""
    return validate(merge({}, [*FOREIGN, *words], "x"), "x")


def test_without_a_ladder_a_script_has_one_rung() -> None:
    assert foreign().ladder.rungs == ("v3",) and foreign("ladder.warm_start=false").ladder.rungs == ("v3",)
    assert validate(merge({}, [], "x"), "x").ladder.rungs == RUNGS
    assert ExperimentConfig(trainer=TrainerSection(command=("a",))).ladder.rungs == ("v3",)
    again = ExperimentConfig.model_validate(foreign().model_dump())
    assert again == foreign() and again == ExperimentConfig.model_validate_json(again.model_dump_json())


def test_remedies_are_those_of_this_projects_trainer() -> None:
    assert validate(merge({}, [], "x"), "x").ladder.remedies == 1 and foreign().ladder.remedies == 0
    assert foreign("ladder.remedies=0", "ladder.rungs=[v3]").ladder.remedies == 0
    assert ExperimentConfig(trainer=TrainerSection(command=("a",))).ladder.remedies == 0
    with pytest.raises(BadInput, match=r"x: ladder.remedies: remedies set keys .* allowed: 0, not 2"):
        foreign("ladder.remedies=2")


@pytest.mark.parametrize("rungs", ["[v3,softmax_only]", "[two_experts]", "[{name: x, set: {}},v2_router_gat]"])
def test_a_built_in_rung_for_a_script_is_refused(rungs: str) -> None:
    with pytest.raises(BadInput, match=r"ladder.rungs: \w+ sets keys of this project's own trainer.*allowed: v3"):
        foreign(f"ladder.rungs={rungs}")


def test_a_rung_without_keys_may_be_the_first_or_start_from_scratch() -> None:
    rungs = foreign("ladder.rungs=[{name: base, set: {}},{name: anew, set: {}, warm_start: false}]").ladder.rungs
    assert [rung.name for rung in rungs if isinstance(rung, CustomRung)] == ["base", "anew"]
    with pytest.raises(BadInput, match=r"ladder\.rungs: set: the rung same sets no key"):
        foreign("ladder.rungs=[v3,{name: same, set: {}}]")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command says."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("ladder: "), lines
    return lines[0]


@pytest.mark.parametrize(("overrides", "expected"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("command", ["run", "check"])
def test_bad_value(
    command: str, overrides: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    line = refused([command, QUICKSTART, *overrides, f"tracking.root={root}"], capsys)
    assert all(part in line for part in expected), line
    assert not root.exists()


@pytest.mark.parametrize(
    ("command", "file", "word"),
    [
        ("run", "quickstart.yaml", "training.device=cuda"),
        ("check", "quickstart.yaml", "ladder.rungs=[v3,{name: x, set: {training.device: cuda}}]"),
        ("tune", "study.yaml", "training.device=cuda"),
    ],
)
def test_a_gpu_that_is_not_there(
    command: str,
    file: str,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refused([command, str(EXPERIMENTS / file), word, f"tracking.root={tmp_path / 'root'}"], capsys)
    assert all(part in line for part in ("training.device: cuda", "no GPU", "allowed: auto, cpu")), line
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: [1\nb: {", "not readable as YAML: line 2, column 2: did not find expected ',' or ']'"),
        ("- a\n- b\n", "mapping"),
        ("training:\n  seed: 1\n  seed: 2\n", "duplicate"),
    ],
)
def test_bad_file(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert expected in refused(["run", str(path)], capsys)


@pytest.mark.parametrize("word", ["training.seed=[1", "training.seed=${x", "training.seed=!!int x"])
def test_override_that_is_not_yaml(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{word}: not readable as YAML" in refused(["run", QUICKSTART, word], capsys)


def test_missing_file_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["run", str(EXPERIMENTS / "quikstart.yaml")], capsys)
    assert "no such file" in line and "quickstart.yaml" in line


def test_exit_code_stands_where_nothing_can_be_written() -> None:
    """Standard output and error on a full disk."""
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pipeline", "run", "experiments/none.yaml"]
        assert subprocess.run(command, stdout=full, stderr=full, check=False).returncode == 2


def test_folder_instead_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "folder" in refused(["run", str(tmp_path)], capsys)


def test_status_takes_no_unknown_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tracking.root" in refused(["status", "tracking.rot=x"], capsys)


def test_overrides_replace_and_keep_the_rest() -> None:
    config = load_experiment(QUICKSTART, ["training.episodes=24", "ladder.rungs=[freeze_gat]"])
    assert config.training.episodes == 24 and config.ladder.rungs == ("freeze_gat",)
    assert config.phases.warmup_until == 100


def test_scientific_notation_and_negative_coefficients_are_numbers() -> None:
    config = load_experiment(QUICKSTART, ["training.learning_rate=3e-4", "training.load_balance_coef=-0.01"])
    assert config.training.learning_rate == 3e-4 and config.training.load_balance_coef == -0.01


def test_empty_section_means_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("training:\n")
    assert load_experiment(path) == ExperimentConfig()


def test_a_stacked_rung_may_set_the_values_of_the_experiment() -> None:
    """It may take back what a rung before it has changed."""
    back = "ladder.rungs=[v3,freeze_gat,{name: back, set: {policy.gat_frozen: false}}]"
    assert len(load_experiment(QUICKSTART, [back, "ladder.cumulative=true"]).ladder.rungs) == 3


def test_configuration_is_frozen_and_flattens() -> None:
    config = ExperimentConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.training.seed = 2  # type: ignore[misc]
    flat = flatten(config)
    assert flat["training.learning_rate"] == 1e-4 and flat["environment.shaping.task"] == 0.5


def test_of_a_mapping_the_keys_that_differ_are_told() -> None:
    before = with_overrides(["trainer.command=[python,t.py]", "trainer.parameters={a: 1, b: {c: 2, d: [3]}, e: 4}"])
    after = with_overrides(["trainer.command=[python,t.py]", "trainer.parameters={a: 1, b: {c: 5, d: [3]}, f: 6}"])
    assert difference(before, after) == {
        "trainer.parameters.b.c": (2, 5),
        "trainer.parameters.f": (None, 6),
        "trainer.parameters.e": (4, None),
    }
    assert flatten(before)["trainer.parameters"]["b"] == {"c": 2, "d": [3]}
    kinds = with_overrides(["trainer.command=[python,t.py]", "trainer.parameters={a: 1, b: 2, e: 4}"])
    assert difference(before, kinds) == {"trainer.parameters.b": ({"c": 2, "d": [3]}, 2)}


def test_written_configuration_is_an_experiment_again(tmp_path: Path) -> None:
    """Any attempt can be rerun from what MLflow holds."""
    import yaml

    config = load_experiment(QUICKSTART, ["ladder.rungs=[v3,{name: x, set: {training.seed: 4}}]"])
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_experiment(path) == config


@pytest.mark.parametrize("name", ["quickstart", "nethack"])
def test_shipped_experiments_pass_the_checklist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXPERIMENTS / f"{name}.yaml")]) == 0
    assert "10 of 10 items true, and 2 of 2 of" in capsys.readouterr().out


def test_drill_is_a_valid_experiment_that_fails_the_checklist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXPERIMENTS / "drill.yaml")]) == 2
    said = capsys.readouterr().out
    assert "9 of 10 items true, and 1 of 2 of" in said and "refuses" not in said and said.count("NO, accepted") == 2


UNTRUE = {
    "learning rate 1e-4": {"training.learning_rate": 3e-4},
    "load-balance loss": {"training.load_balance_coef": 0.0},
    "diversity loss": {"training.diversity_coef": -0.01},
    "warm-up (softmax → sparsemax)": {"phases.warmup.routing": "sparsemax"},
    "temperature annealing": {"phases.temperature_end": 0.01},
    "NaN detection and rollback": {"trainer.command": ["true"]},
    "TrainingMonitor": {
        "health.override": {rule.name: {"action": "warn"} for rule in ExperimentConfig().health.build()}
    },
    "clipping at 1.0": {"training.max_grad_norm": 5.0},
    "nan_to_num + clamp on all logits": {"trainer.command": ["true"]},
    "checkpoint every 100 episodes": {"training.checkpoint_every_episodes": 101},
    "entropy of actions and of α": {"training.alpha_entropy_coef": -1.0},
    "graph encoder": {"policy.gat_layers": 8},
}


def test_of_a_trainer_of_ones_own_only_the_monitor_is_known() -> None:
    items = preflight(load_experiment(EXPERIMENTS.parent / "examples" / "cartpole.yaml"))
    assert [each.name for each in items if each.true] == ["TrainingMonitor"]


@pytest.mark.parametrize("changes", [{"policy.kind": "ppo"}, {"policy.experts": ["general"]}])
def test_terms_that_are_constant_do_not_count(changes: dict[str, object]) -> None:
    false = {each.name for each in preflight(ExperimentConfig().with_values(changes)) if not each.true}
    assert {"load-balance loss", "diversity loss"} <= false


@pytest.mark.parametrize("key", ["phases.warmup.learning_rate_factor", "training.router_learning_rate_factor"])
def test_the_rate_is_what_is_learnt_with(key: str) -> None:
    changed = preflight(ExperimentConfig().with_values({key: 3.0}))
    assert [each.name for each in changed if not each.true] == ["learning rate 1e-4"]


def test_rules_on_the_score_that_an_experiment_is_too_short_for() -> None:
    """By the phases in which they judge: the brief's schedule has room for both, up to fine-tune."""
    assert too_short(ExperimentConfig()) == ""
    later = too_short(ExperimentConfig().with_values({"phases.transition_until": 1999}))
    assert later == "flat_score (needs 2000 episodes before finetune, here 1999)"
    anywhere = {"health.override": {"flat_score": {"phases": None}}, "phases.transition_until": 1000}
    assert "flat_score" not in too_short(ExperimentConfig().with_values(anywhere))
    short = too_short(ExperimentConfig().with_values({**anywhere, "training.episodes": 1000}))
    assert "reward_plateau (needs 1500 episodes before finetune, here 1000)" in short
    assert "not_above_random (needs 2000 episodes, here 1000), flat_score (needs 2000 episodes, " in short


@pytest.mark.parametrize("item", UNTRUE)
def test_each_item_of_the_checklist_can_be_untrue(item: str) -> None:
    items = {each.name: each.true for each in preflight(ExperimentConfig())}
    assert items.keys() == UNTRUE.keys() and all(items.values())
    changed = {each.name: each.true for each in preflight(ExperimentConfig().with_values(UNTRUE[item]))}
    assert not changed[item]


def test_a_list_of_seeds_is_so_many_experiments() -> None:
    """Alike but for the seed; each has one."""
    configs = load_experiments(QUICKSTART, ["training.seed=[3,1,2]"])
    assert [config.training.seed for config in configs] == [3, 1, 2]
    assert {str(config.with_values({"training.seed": 0})) for config in configs} == {
        str(load_experiment(QUICKSTART, ["training.seed=0"]))
    }
    assert len(load_experiments(QUICKSTART)) == 1


@pytest.mark.parametrize(
    ("seeds", "problem"),
    [
        ("[]", "each of them once"),
        ("[1,1]", "each of them once"),
        ("[1,two]", "training.seed: input should be a valid integer, not 'two'"),
        ("[1,-1]", "training.seed"),
        ("[[1]]", "training.seed"),
    ],
)
def test_bad_lists_of_seeds(seeds: str, problem: str) -> None:
    with pytest.raises(BadInput, match=re.escape(problem)):
        load_experiments(QUICKSTART, [f"training.seed={seeds}"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["compare", "nosuchrun", "--out", "page", "tracking.root={root}"], "no experiments yet under {root}"),
        (["watch", "nosuchrun", "--pace", "0", "tracking.root={root}"], "no experiments yet under {root}"),
        (["watch", "nosuchrun", "--pace", "fast"], "'fast': must be seconds between 0 and 60"),
        (["watch", "nosuchrun", "--seed", "-1"], "'-1': must be a whole number"),
        (["watch"], "RUN_ID"),
        (["compare", "--ouy", "page"], "unrecognized arguments: --ouy"),
        (["status", "--folow"], "unrecognized arguments: --folow"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_commands_refuse_in_one_line(
    words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert main([word.format(root=root) for word in words]) == 2
    said = capsys.readouterr().err
    assert problem.format(root=root) in said and len(said.splitlines()) == 1
    assert not root.exists()


def test_mappings_in_a_rung_are_merged() -> None:
    config = ExperimentConfig.model_validate(
        {"trainer": {"command": ["train"], "parameters": {"rate": 5.0, "opt": {"lr": 1, "betas": [0.9]}}}}
    )
    changed = config.with_values({"training": {"learning_rate": 1e-5}, "trainer": {"parameters": {"opt": {"lr": 2}}}})
    assert changed.training == config.training.model_copy(update={"learning_rate": 1e-5})
    assert changed.trainer.command == ("train",)
    assert changed.trainer.parameters == {"rate": 5.0, "opt": {"lr": 2, "betas": [0.9]}}


@pytest.mark.parametrize(
    ("parameters", "key"),
    [
        ({"clip": float("inf")}, "trainer.parameters.clip: must be finite, not inf"),
        (
            {"optimiser": {"betas": [0.9, float("nan")]}},
            "trainer.parameters.optimiser.betas.1: must be finite, not nan",
        ),
        ({"raw": b"x"}, "trainer.parameters.raw: must be text, a number"),
    ],
)
def test_parameters_that_json_cannot_hold_are_refused(parameters: dict[str, Any], key: str) -> None:
    with pytest.raises(BadInput, match=key):
        validate({"trainer": {"command": ["train"], "parameters": parameters}}, "x.yaml")


HEAD = "trainer:\n  command: [python, t.py]\n  parameters:\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("budget: {hours: 12:30}", "budget.hours: 12:30 is a number in sixties to YAML; write a number such as 12.5"),
        (f"{HEAD}    a: [1, {{b: 1:30.5}}]", "trainer.parameters.a.1.b: 1:30.5 is a number in sixties"),
        (f"{HEAD}    a: {'9' * 5000}", "a number has too many digits"),
        (f"{HEAD}    a: {'[' * 600 + ']' * 600}", "nested too deeply"),
        (f"{HEAD}    a: {'[' * 20000 + ']' * 20000}", "nested too deeply"),
        (f"{HEAD}    a: &a [*a]", "recursive"),
        (f"{HEAD}    a: ???", "trainer.parameters.a: a value is missing: it is ???"),
        ("experiment:\n  name: ???", "experiment.name: a value is missing"),
        ("experiment: [1]", "experiment: must be a mapping, such as `experiment: {key: value}`, not a list"),
        ("phases: {warmup: [1]}", "phases.warmup: must be a mapping"),
        ("health: {extra: {name: x}}", "health.extra: must be a list, such as `extra: [{…}]`, not a mapping"),
        ("ladder: {rungs: {v3: 1}}", "ladder.rungs: must be a list"),
        ("trainer: {command: ['', x]}", "trainer.command: the first word must name a program"),
        ('trainer: {command: ["a", "b\\0"]}', "trainer.command: no word can have a NUL"),
        ("notify: {command: [' ']}", "notify.command: the first word must name a program"),
        (f"ladder: {{rungs: [v3, {{name: {'a' * 101}, set: {{training.gamma: 0.9}}}}]}}", "at most 100 characters"),
        ("ladder: {rungs: [v3, {name: a/b, set: {training.gamma: 0.9}}]}", "may have letters, digits"),
    ],
    ids=lambda text: text[:40],
)
def test_odd_yaml_is_refused_in_one_line_that_names_the_key(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_experiments(path)
    said = str(caught.value)
    assert says in said and "\n" not in said and len(said) < 500 + len(str(path))


def test_an_override_in_sixties_is_refused() -> None:
    with pytest.raises(BadInput, match=r"budget\.hours: 12:30 is a number in sixties"):
        with_overrides(["budget.hours=12:30"])
    assert with_overrides(["trainer.parameters.at='12:30'"]).trainer.parameters == {"at": "12:30"}
    assert with_overrides(["tracking.uri=http://127.0.0.1:5000"]).tracking.uri == "http://127.0.0.1:5000"


RULE = "{name: NAME, verdict: gradient_explosion, conditions: [{metric: METRIC, above: 1}]}"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "a"], "the names of rules must differ; a is the name of 2 of them"),
        (["load"], "load is the name of a rule of the set v3"),
        (["a/../../b"], "health.extra.0.name: may have letters, digits, `_`, `-` and, but for its first, `.`"),
        (["''"], "may have letters"),
        (["..", "b"], "may have letters"),
        (["a b"], "may have letters"),
        (["学習"], "may have letters"),
        (['"a\\n"'], "may have letters"),
        (["a" * 101], "at most 100 characters"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_names_of_rules_are_names_of_files_and_differ(names: list[str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    rules = ", ".join(RULE.replace("NAME", name).replace("METRIC", "loss") for name in names)
    path.write_text(f"health: {{extra: [{rules}]}}")
    with pytest.raises(BadInput) as caught:
        load_experiments(path)
    assert says in str(caught.value)


def test_a_rule_needs_the_name_of_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(f"health: {{extra: [{RULE.replace('NAME', 'a-b.c_1').replace('METRIC', repr(''))}]}}")
    with pytest.raises(BadInput, match=r"conditions\.0\.metric"):
        load_experiments(path)
    path.write_text(f"health: {{extra: [{RULE.replace('NAME', 'a-b.c_1').replace('METRIC', 'a/b c')}]}}")
    assert load_experiments(path)[0].health.extra[0].name == "a-b.c_1"


@pytest.mark.parametrize(
    ("words", "warm"),
    [
        ([], True),
        (["ladder.until=end"], False),
        (["ladder.until=end", "ladder.warm_start=true"], True),
        (["ladder.warm_start=false"], False),
    ],
    ids=str,
)
def test_rungs_that_are_compared_start_from_scratch_unless_it_is_said(words: list[str], warm: bool) -> None:
    config = load_experiment(QUICKSTART, words)
    assert config.ladder.warm_start is warm
    kept = config.model_dump_json(exclude_defaults=True)  # as the store has it for `ladder resume`
    assert ExperimentConfig.model_validate_json(kept) == config


def test_check_says_that_every_rung_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", QUICKSTART, "ladder.until=end"])
    assert "each of 5 rungs is trained to its end, from scratch" in capsys.readouterr().out


@pytest.mark.parametrize(
    "written", ["--d=${HOME}", "--d=${{oc.env:HOME}}", "--d=${no.such.key}", "--d=${oc.env:NO_SUCH_NAME}"]
)
def test_a_dollar_that_cannot_be_resolved_is_told_with_its_key_and_how_to_write_it(
    written: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps({"trainer": {"command": ["python", "x.py", written]}}))
    with pytest.raises(BadInput, match=r"trainer\.command\[2\]: .*\\\$\{\{NAME\}\}") as told:
        load_experiment(file)
    assert "\n" not in str(told.value) and "full_key" not in str(told.value)


def test_a_literal_dollar_reaches_the_command(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps({"trainer": {"command": ["bash", "-c", "echo \\${{HOME}}"]}}))
    command = load_experiment(file).trainer.command
    assert command is not None and command[-1].replace("{{", "{").replace("}}", "}") == "echo ${HOME}"
