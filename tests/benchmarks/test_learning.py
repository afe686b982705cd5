"""What the learning benchmark makes of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detection import HEALTHY
from benchmarks.learning import EXPERIMENT, JUDGED, ROUTING, VARIANTS, history_path, settings, summary
from benchmarks.learning_page import NOW, draw, parts, render, routing, table
from benchmarks.report import mean, median
from pipeline.experiment_file import load_experiment
from pipeline.health.definitions import definition


def run(variant: str, score: float, seed: int) -> dict[str, Any]:
    return {
        "variant": variant,
        "environment": "NetHackScore-v0",
        "steps": 1000,
        "seed": seed,
        "commit": "0" * 40,
        "verdict": "healthy",
        "score": score,
        "task_return": 0.0,
        "depth": 1.5,
        "curve": [[100, score / 2, 0.0, 1.0], [1000, score, 0.0, 1.5]],
        "last_fifth": {"alpha_entropy": 0.7, "expert_usage/a": 0.2, "expert_usage/b": 0.8},
        "specialisation": [[100, 0.1], [1000, 0.4]],
    }


def test_figure_is_the_mean_of_the_last_300_episodes() -> None:
    """Updates in which 100 episodes ended, with mean scores 1 … 5: the last three count, by their episodes."""
    rows = np.array([[step, 100, step, 10 * step, 1] for step in range(1, 6)], dtype=float)
    result = summary(rows)
    assert result["score"] == pytest.approx(4.0) and result["task_return"] == pytest.approx(40.0)
    assert result["episodes"] == 500
    rows[-1, 1] = 50  # with the last update's 50, three updates are 250 episodes, and a fourth would be too many
    assert summary(rows)["score"] == pytest.approx((3 * 100 + 4 * 100 + 5 * 50) / 250)
    assert [point[0] for point in result["curve"]] == sorted(point[0] for point in result["curve"])


def test_intervals_are_over_runs() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 100.0]
    value, low, high = mean(values)
    assert value == pytest.approx(115 / 6) and (low + high) / 2 == pytest.approx(value) and low < 0
    assert median(values) == (3.5, 1.0, 100.0)  # of six runs the two outermost
    assert median(values[:5])[0] == 3.0 and np.isnan(median(values[:5])[1])
    assert mean([5.0])[0] == 5.0 and np.isnan(mean([5.0, 6.0])[1])


def test_a_part_helps_only_where_interval_and_exact_test_say_so() -> None:
    v3 = [run("v3", score, seed) for seed, score in enumerate([40, 44, 48, 46])]
    others = {
        "v3_no_graph": [run("v3_no_graph", score, seed) for seed, score in enumerate([20, 22, 25, 23])],
        "v3_one_expert": [run("v3_one_expert", score, seed) for seed, score in enumerate([35, 44, 50, 43])],
        "ppo": [run("ppo", score, seed) for seed, score in enumerate([60, 62, 70, 65])],
        "softmax_only": [run("softmax_only", score, seed) for seed, score in enumerate([30, 32, 35])],
        "freeze_gat": [run("freeze_gat", score, seed) for seed, score in enumerate([30, 32, 35, 41])],
        "v3_no_phases": [run("v3_no_phases", 10, 1)],
    }
    found = {row[1]: row for row in parts({"v3": v3, **others})}
    assert found["v3_no_graph"][2].startswith("+22.0 [") and found["v3_no_graph"][3] == "0.029"
    said = {name: row[5] for name, row in found.items()}
    assert said["v3_no_graph"] == "helps" and said["ppo"] == "harms"
    assert said["v3_one_expert"] == "cannot be told to help"
    assert found["freeze_gat"][2].startswith("+10.0 [+2") and said["freeze_gat"] == "cannot be told to help"
    assert said["v3_no_phases"] == said["softmax_only"] == "too few runs to tell"


def test_page_ranks_variants_and_shows_the_routing(tmp_path: Path) -> None:
    runs = {
        "v3": [run("v3", 40, 1), run("v3", 50, 2)],
        "ppo": [run("ppo", 45, 1), run("ppo", 30, 2)],
        "random": [run("random", 15, 1)],
    }
    rows = table(runs)
    assert [row[0] for row in rows] == ["v3", "ppo", "random"]
    assert [row[3] for row in rows] == ["", "0.75 [0.14, 0.99]", "1.00"]
    assert routing(runs)[0][:4] == ["v3", "0.70", "20 – 80 %", "0.10 → 0.40"]
    everything = {("NetHackScore-v0", 1000): runs}
    assert "| v3 | 2 | 45.0" in render(NOW, everything)
    draw(everything, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").stat().st_size > 10_000


@pytest.mark.parametrize("metric", [*JUDGED, *ROUTING])
def test_what_it_reads_is_what_is_logged(metric: str) -> None:
    assert definition(metric) is not None


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_valid_experiment(variant: str) -> None:
    config = load_experiment("experiments/score.yaml", [*settings("NetHackScore-v0", 400_000, 3), *VARIANTS[variant]])
    assert config.training.steps == 400_000 and config.training.seed == 3
    assert config.phases.warmup_until <= config.phases.transition_until <= config.training.episodes
    assert all(rule.action == "warn" for rule in config.health.build())


@pytest.mark.parametrize("budget", [300_000, 1_000_000, 2_000_000])
@pytest.mark.parametrize("environment", ["NetHackScore-v0", "NetHackScout-v0"])
def test_histories_are_found_among_the_healthy_recordings(environment: str, budget: int) -> None:
    config = load_experiment(Path(EXPERIMENT), settings(environment, budget, seed=7))
    fault, rung, seed = history_path("freeze_gat", config).name.split("-")
    assert HEALTHY.fullmatch(fault) and (rung, seed) == ("freeze_gat", "seed7.csv.gz")
