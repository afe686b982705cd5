"""The brief's checklist is about what a run comes to, and `ladder run` refuses what differs without saying so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import VARIANTS, settings
from benchmarks.suite import load_suite
from benchmarks.survival import SETTINGS
from fallbacks.ladder import BUILT_IN
from pipeline.cli import main
from pipeline.config import PREFLIGHT_ITEMS, ExperimentConfig
from pipeline.experiment_file import load_experiment, load_experiments
from pipeline.preflight import accepted, accepting, certain_episodes, not_accepted, preflight
from tests.conftest import small_config

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
NETHACK, QUICKSTART = str(EXPERIMENTS / "nethack.yaml"), str(EXPERIMENTS / "quickstart.yaml")
BRIEF = ExperimentConfig()

DIFFERENT: list[tuple[str, Any, str]] = [
    ("training.learning_rate", 3e-4, "learning_rate"),
    ("training.learning_rate", 0.0, "learning_rate"),
    ("phases.warmup.learning_rate_factor", 0.5, "learning_rate"),
    ("phases.transition.learning_rate_factor", 1.0, "learning_rate"),
    ("phases.finetune.learning_rate_factor", 50.0, "learning_rate"),
    ("training.gat_learning_rate_factor", 300.0, "learning_rate"),
    ("training.router_learning_rate_factor", 0.0, "learning_rate"),
    ("training.warmup_steps", 0, "learning_rate"),
    ("training.warmup_steps", 1001, "learning_rate"),
    ("training.cosine", False, "learning_rate"),
    ("training.cosine_floor", 1.0, "learning_rate"),
    ("training.load_balance_coef", -0.01, "load_balance"),
    ("training.diversity_coef", 0.0, "diversity"),
    ("phases.warmup_until", 0, "warm_up"),
    ("phases.warmup.routing", "sparsemax", "warm_up"),
    ("phases.transition.routing", "softmax", "warm_up"),
    ("phases.finetune.routing", "softmax", "warm_up"),
    ("phases.temperature_start", 2.0, "temperature"),
    ("phases.temperature_end", 0.01, "temperature"),
    ("phases.transition_until", 1000, "temperature"),
    ("health.rules", "none", "monitor"),
    ("health.rules", "generic", "monitor"),
    ("training.max_grad_norm", 0.5, "clipping"),
    ("training.checkpoint_every_episodes", 1000, "checkpoints"),
    ("training.alpha_entropy_coef", -1.0, "entropy"),
    ("training.alpha_entropy_coef", 0.0, "entropy"),
    ("training.entropy_coef", -0.3, "entropy"),
    ("training.critic_coef", 0.0, "entropy"),
    ("policy.graph", False, "encoder"),
    ("policy.gat_layers", 3, "encoder"),
    ("policy.gat_residual", False, "encoder"),
    ("policy.gat_dropout", 0.0, "encoder"),
    ("policy.gat_layer_norm", False, "encoder"),
    ("policy.gat_frozen", True, "encoder"),
    ("policy.attention_temperature", 1000.0, "encoder"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "item"), DIFFERENT)
def test_each_value_that_differs_is_refused_by_name_and_accepted_by_name(key: str, value: object, item: str) -> None:
    config = BRIEF.with_values({key: value})
    (line,) = not_accepted(config)
    assert line.startswith(f"{item}: ") and f"{key}=" in line and "allowed: " in line
    assert f"preflight.accept=[{item}]" in line
    assert not accepted(config)
    meant = config.with_values({"preflight.accept": (item,)})
    assert not not_accepted(meant) and accepted(meant) == (item,)
    other = next(name for name in PREFLIGHT_ITEMS if name != item)
    (line,) = not_accepted(config.with_values({"preflight.accept": (other,)}))
    assert all(name in line.partition("preflight.accept=")[2] for name in (item, other))


@pytest.mark.parametrize(
    "changes",
    [
        # The rate is the product: another base with factors that make up for it comes to the same.
        {
            "training.learning_rate": 2e-4,
            "phases.warmup.learning_rate_factor": 0.5,
            "phases.transition.learning_rate_factor": 0.25,
            "phases.finetune.learning_rate_factor": 0.05,
        },
        {"training.warmup_steps": 1},
        {"phases.warmup_until": 100, "phases.transition_until": 200, "training.episodes": 300},
        {"policy.experts": ("survival", "general")},
        {"training.checkpoint_every_episodes": 1},
        {"health.rules": "seed"},
        {"health.override": {"reward_plateau": {"action": "warn"}}},
        {"policy.kind": "v2"},
        {"policy.kind": "ppo", "training.learning_rate": 1.0},
        {"trainer.command": ("true",), "training.learning_rate": 1.0},
        {"preflight.accept": ("encoder",)},
    ],
)
def test_what_comes_to_the_same_or_is_no_v3_of_ours_is_not_refused(changes: dict[str, object]) -> None:
    assert not not_accepted(BRIEF.with_values(changes)) and not accepted(BRIEF.with_values(changes))


def test_a_broken_experiment_is_refused_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "policy.gat_layers=8", "policy.gat_residual=false", "policy.gat_dropout=0", "training.alpha_entropy_coef=-1",
        "phases.warmup_until=0", "phases.finetune.learning_rate_factor=50", f"tracking.root={tmp_path / 'root'}",
    ]  # fmt: skip
    assert main(["run", NETHACK, *words]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.split(": ")[:3] for line in lines] == [
        ["ladder", NETHACK, name] for name in ("learning_rate", "warm_up", "entropy", "encoder")
    ]
    assert all("preflight.accept=[learning_rate, warm_up, entropy, encoder]" in line for line in lines)
    assert "policy.gat_layers=8, allowed: 1 – 2; policy.gat_residual=false, allowed: true" in lines[3]
    assert not said.out and not (tmp_path / "root").exists()
    assert main(["check", NETHACK, *words]) == 2
    said = capsys.readouterr()
    assert "8 of 10 items true, and 0 of 2" in said.out and "`ladder run` refuses" in said.out


def test_an_unknown_item_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", QUICKSTART, "preflight.accept=[learning_rat]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "preflight.accept.0: unknown value 'learning_rat'; nearest: learning_rate; allowed: " in line
    assert all(name in line for name in PREFLIGHT_ITEMS)


SHIPPED = {
    **{
        path.name: load_experiments(path)[0] for path in EXPERIMENTS.glob("*.yaml") if not path.name.startswith("study")
    },
    **{f"fault {fault.name}": fault.config() for fault in load_suite().values()},
}


@pytest.mark.parametrize("config", SHIPPED.values(), ids=SHIPPED)
def test_what_ships_names_what_it_means_and_nothing_else(config: ExperimentConfig) -> None:
    assert not not_accepted(config)
    assert accepted(config) == config.preflight.accept


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_of_the_learning_benchmark_are_meant(variant: str) -> None:
    words = [*settings("NetHackScore-v0", 300_000, 1), *VARIANTS[variant]]
    assert not not_accepted(load_experiment(EXPERIMENTS / "score.yaml", words))


def test_the_experiments_of_the_survival_benchmark_are_as_in_the_brief(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SETTINGS)
    assert not not_accepted(load_experiment(tmp_path / "x.yaml"))


@pytest.mark.parametrize("name", ["quickstart", "nethack", "score", "drill"])
@pytest.mark.parametrize(
    "words",
    [
        ["training.episodes=40"],
        ["training.episodes=1"],
        ["training.steps=2000"],
        ["training.episodes=600", "ladder.rungs=[v3,softmax_only]"],
        ["training.episodes=40", "environment.num_envs=4", "environment.max_episode_steps=200"],
        ["environment.id=NetHackScout-v0", "environment.character=val-hum-neu-fem"],
        ["health.rules=seed"],
        ["training.seed=[1,2,3]", "budget.hours=1"],
        *([f"ladder.rungs=[{rung}]"] for rung in BUILT_IN),
        ["ladder.rungs=[v3,{name: fast, set: {training.learning_rate: 1e-2}}]"],
    ],
)
def test_nobody_who_shortens_a_run_or_chooses_its_rungs_is_refused(name: str, words: list[str]) -> None:
    assert not not_accepted(load_experiments(EXPERIMENTS / f"{name}.yaml", words)[0])


def test_a_first_rung_of_ones_own_is_what_the_experiment_asks_for() -> None:
    words = ["ladder.rungs=[{name: fast, set: {training.learning_rate: 1e-2}}]"]
    (line,) = not_accepted(load_experiment(QUICKSTART, words))
    assert "training.learning_rate=0.01, allowed: 0.0001" in line


def test_a_run_that_ends_early_is_told_and_not_refused() -> None:
    config = load_experiment(NETHACK, ["training.episodes=40"])
    items = {item.key: item for item in preflight(config)}
    short = {key for key, item in items.items() if not item.true}
    assert short == {"learning_rate", "warm_up", "temperature"} and not not_accepted(config)
    assert "phases.warmup_until=1000: the run has 40 episodes" in items["warm_up"].configured
    assert "training.warmup_steps=1000: the first phase has at most 625" in items["learning_rate"].configured


@pytest.mark.parametrize(
    ("changes", "short"),
    [
        ({"phases.warmup_until": 99}, "warm_up"),
        ({"phases.transition_until": 1099}, "temperature"),
        ({"training.episodes": 10**6, "phases.warmup_until": 999}, "warm_up"),
        ({"training.episodes": 10**6}, None),
        ({"phases.warmup_until": 100, "phases.transition_until": 200}, None),
    ],
)
def test_a_phase_that_is_hardly_there_is_told_and_not_refused(changes: dict[str, int], short: str | None) -> None:
    config = BRIEF.with_values(changes)
    assert not not_accepted(config)
    assert [item.key for item in preflight(config) if item.cut_short] == ([] if short is None else [short])


def test_steps_that_end_a_run_count_as_the_episodes_that_are_sure_to_fit() -> None:
    """1 M steps of 16 games with at most 1000 steps an episode."""
    config = BRIEF.with_values({"training.steps": 1_000_000})
    assert certain_episodes(config) == 62 * 16
    items = {item.key: item for item in preflight(config)}
    assert "1000000 steps are 992 episodes at least" in items["warm_up"].configured
    assert certain_episodes(BRIEF) == certain_episodes(BRIEF.with_values({"training.steps": 10**9})) == 5000


@pytest.mark.parametrize("rung", BUILT_IN)
def test_the_file_of_an_attempt_can_be_run_again(rung: str) -> None:
    """A rung differs by design; what the attempt leaves in MLflow accepts it."""
    config = BUILT_IN[rung].transform(small_config())
    assert not not_accepted(accepting(config))
    assert accepting(config).with_values({"preflight.accept": ()}) == config
