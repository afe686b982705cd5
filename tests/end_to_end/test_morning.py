"""The morning after: two seeds of one experiment, run as a person runs them, and everything that is left to look at."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.compare import load
from pipeline.environments.names import SITUATIONS
from tests.end_to_end import forked
from tests.end_to_end.conftest import LIGHT, REPOSITORY, Experiment
from tests.end_to_end.test_terminal import on_a_terminal

pytestmark = pytest.mark.xdist_group("morning")  # one night for all of them


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("night")
    values: dict[str, Any] = {
        "ladder.rungs": ["softmax_only"],
        "tracking.publish": True,
        "notify.command": ["sh", "-c", f"cat >> {folder}/told; echo >> {folder}/told"],
    }
    made = Experiment(folder, values)
    command = [*made.command, "training.seed=[1,2]"]
    return made, forked.complete(command, cwd=folder, env=made.environment, timeout=250)


def ladder(made: Experiment, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*made.command[:3], *words, f"tracking.root={made.root}"]
    return forked.complete(command, cwd=made.folder, env=made.environment, timeout=100)


Night = tuple[Experiment, subprocess.CompletedProcess[str]]


def test_seeds_are_siblings_with_a_summary(night: Night) -> None:
    made, result = night
    assert result.returncode == 0, result.stdout + result.stderr
    parents = sorted(
        (run for run in made.runs() if run.data.tags["ladder.kind"] == "experiment"),
        key=lambda run: run.info.start_time,
    )
    assert [run.data.params["training.seed"] for run in parents] == ["1", "2"]
    assert parents[0].info.end_time <= parents[1].info.start_time
    assert len({run.info.experiment_id for run in parents}) == 1
    assert all(run.data.tags["ladder.outcome"] == "healthy" for run in parents)
    summary = result.stdout.split("over 2 experiments")[1]
    assert "softmax_only" in summary and "settled policies" in summary
    page = (made.root / "compare.html").read_text()  # of all seeds, not of the last one
    assert all(parent.info.run_id in page for parent in parents) and "small: 2 experiments" in page


def test_notes_and_tags_say_it_in_two_lines(night: Night) -> None:
    made, _ = night
    healthy = made.client.get_run(load(root=made.root).experiments.settled_run[0])
    first, _, second = healthy.data.tags["mlflow.note.content"].splitlines()
    assert first == "**healthy** – trained to the end; no rule fired" and "episodes, " in second
    parent = made.client.get_run(healthy.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["ladder.settled_run"] == healthy.info.run_id
    assert f"runs:/{healthy.info.run_id}/player" in parent.data.tags["mlflow.note.content"]
    assert "| 0 | softmax_only | healthy |" in parent.data.tags["mlflow.note.content"]


def test_figures_are_artifacts(night: Night) -> None:
    made, _ = night
    for parent in load(root=made.root).experiments.itertuples():
        page = Path(made.client.download_artifacts(parent.parent, "compare.html")).read_text()
        assert "The settled policy at play" in page and parent.settled_run in page and "data:image/gif" in page
        figures = {each.path for each in made.client.list_artifacts(parent.settled_run, "figures")}
        assert figures == {"figures/attention.svg", "figures/best_episode.gif"}
        film = Path(made.client.download_artifacts(parent.settled_run, "figures/best_episode.gif"))
        assert film.read_bytes().startswith(b"GIF89a")


def test_each_verdict_and_the_end_are_told(night: Night) -> None:
    made, _ = night
    told = [json.loads(line) for line in (made.folder / "told").read_text().splitlines() if line]
    assert [each["event"] for each in told] == ["verdict", "end"] * 2
    assert [each["seed"] for each in told] == [1, 1, 2, 2]
    assert told[0]["verdict"] == told[1]["outcome"] == "healthy" and told[1]["settled_rung"] == "softmax_only"
    assert [told[0]["run_id"]] == [each["run_id"] for each in told[1]["attempts"]]


def test_routing_by_situation_is_logged(night: Night) -> None:
    made, _ = night
    data = load(root=made.root).metrics
    names = set(data.metric)
    assert {f"situation/{name}" for name in SITUATIONS} <= names and "routing/new_map/survival" in names
    mine = data[(data.metric == "situation/else")]
    assert mine.value.between(0, 1).all() and len(mine) < len(data[data.metric == "update"]) / 2


def test_policy_plays_in_a_fresh_process(night: Night) -> None:
    """The example, in a folder from which this project cannot be imported: the model brings its code."""
    made, _ = night
    environment = {key: value for key, value in made.environment.items() if key != "PYTHONPATH"}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{made.root / 'mlflow.db'}"}
    uri = load(root=made.root).experiments.model[0]
    assert uri.startswith("models:/")
    command = [sys.executable, "-P", str(REPOSITORY / "examples/play.py"), uri, "5"]
    result = subprocess.run(command, cwd=made.folder, env=environment, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("score ") and "dungeon level" in result.stdout


def test_model_has_a_signature_and_its_requirements(night: Night) -> None:
    made, _ = night
    uri = load(root=made.root).experiments.model[1]
    folder = made.root / "artifacts" / "models" / uri.removeprefix("models:/") / "artifacts"
    described = yaml.safe_load((folder / "MLmodel").read_text())
    inputs = json.loads(described["signature"]["inputs"])
    assert [each["name"] for each in inputs] == ["glyphs", "blstats", "underfoot", "visited", "paths", "action_mask"]
    assert json.loads(described["signature"]["outputs"])[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 23]}
    requirements = (folder / "requirements.txt").read_text()
    assert "nle==1.3.0" in requirements and "torch==" in requirements


def test_compare_on_the_terminal_and_as_a_page(night: Night) -> None:
    made, _ = night
    result = ladder(made, "compare", "--out", str(made.folder / "page"))
    assert result.returncode == 0, result.stderr
    assert "small seed 1: healthy on softmax_only" in result.stdout and "over 2 experiments" in result.stdout
    assert (made.folder / "page" / "compare.html").stat().st_size > 50_000


def test_watching_a_policy_play(night: Night) -> None:
    made, _ = night
    parent = load(root=made.root).experiments.parent[0]
    command = [*made.command[:3], "watch", parent[:8], "--pace", "0.01", f"tracking.root={made.root}"]
    environment = made.environment | {"COLUMNS": "130", "LINES": "40"}
    code, shown = on_a_terminal(command, environment, str(made.folder), seconds=60)
    assert code == 0 and shown.count("Dlvl:") > 10 and "general" in shown


def test_status_follows_until_nothing_runs(experiment: Any, tmp_path: Path) -> None:
    done = tmp_path / "done"
    made = experiment(trainer__command=LIGHT, trainer__parameters={"until": str(done)})
    process = made.start()
    made.wait_for_updates(1, process)
    command = [*made.command[:3], "status", "--follow", f"tracking.root={made.root}"]
    follower = made.start(command, stdout=subprocess.PIPE)
    assert follower.stdout is not None
    until = time.monotonic() + 200
    while "0 v3" not in (said := follower.stdout.readline()):  # the attempt's row; it speaks once a minute
        assert said and time.monotonic() < until, "it said nothing of the attempt"
    assert "RUNNING" in said and "640" in said  # steps/s
    done.touch()
    rest = follower.communicate(timeout=120)[0]
    assert follower.returncode == 0, rest
    assert rest.rstrip().splitlines()[-1].split()[2:4] == ["FINISHED", "healthy"]
    assert process.wait(timeout=200) == 0
    empty = made.folder / "nothing"
    result = subprocess.run(
        [*command[:-2], f"tracking.root={empty}"], env=made.environment, capture_output=True, text=True
    )
    assert result.returncode == 0 and "no experiments yet" in result.stdout and not empty.exists()
