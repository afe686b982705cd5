"""Seeds that run at a time: one display, one Ctrl-C, one exit code, and no seed disturbs another."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from mlflow.entities import Run

from tests.end_to_end.conftest import LIGHT, Experiment
from tests.processes.maker import eventually

FAILING = """
import json, os, runpy, sys
seed = json.load(open(os.environ["LADDER_ATTEMPT"]))["config"]["training"]["seed"]
if seed == 2:
    raise RuntimeError("this seed is doomed")
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def seeds(experiment: Any, **more: Any) -> Experiment:
    """Three seeds of a light trainer, which take no core each."""
    usual = {"launcher__request": {"cores": 0.1, "memory_gb": 0.1}, "health__rules": "none", "launcher__parallel": 3}
    made: Experiment = experiment(training__seed=[1, 2, 3], trainer__command=LIGHT, **{**usual, **more})
    return made


def parents(made: Experiment) -> dict[int, Run]:
    found = [run for run in made.runs() if run.data.tags["ladder.kind"] == "experiment"]
    return {int(run.data.params["training.seed"]): run for run in found}


def at_work(made: Experiment, count: int) -> bool:
    return len(list((made.root / "attempts").glob("*/metrics.jsonl"))) >= count


def test_they_run_at_a_time_and_each_line_has_its_seed(experiment: Any) -> None:
    made = seeds(experiment)
    until = made.folder / "until"
    made.values["trainer.parameters"] = {"until": str(until)}
    made.__post_init__()
    process = made.start()
    eventually(lambda: process.poll() is not None or at_work(made, 3))  # all three, before any of them may end
    until.touch()
    assert process.wait(timeout=200) == 0
    said = process.stdout.read() if process.stdout else ""
    for seed in (1, 2, 3):
        assert f"seed {seed} attempt 0: healthy" in said
    assert "over 3 experiments" in said
    assert {run.info.status for run in made.runs()} == {"FINISHED"} and not made.trainers()


def test_a_seed_that_fails_disturbs_no_other_and_the_code_is_that_of_the_worst(experiment: Any) -> None:
    made = seeds(experiment, trainer__parameters={"updates": 8}, budget__retries=0, ladder__rungs=["v3"])
    script = made.folder / "failing.py"
    script.write_text(FAILING)
    made.values["trainer.command"] = [LIGHT[0], str(script), LIGHT[1]]
    made.__post_init__()
    result = made.run()
    assert result.returncode == 3, result.stdout + result.stderr
    outcomes = {seed: run.data.tags["ladder.outcome"] for seed, run in parents(made).items()}
    assert outcomes == {1: "healthy", 2: "exhausted", 3: "healthy"}


@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_resume_takes_up_all_that_were_cut_off(experiment: Any, how: str) -> None:
    made = seeds(experiment)
    until = made.folder / "until"
    made.values["trainer.parameters"] = {"until": str(until)}
    made.__post_init__()
    process = made.start()
    eventually(lambda: process.poll() is not None or at_work(made, 3))
    process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGKILL)
    assert process.wait(timeout=200) == (130 if how == "Ctrl-C" else -9)
    eventually(lambda: not made.trainers())
    assert how != "Ctrl-C" or {run.info.status for run in made.runs()} == {"KILLED"}
    resumed = made.start(made.resume_command())
    eventually(lambda: resumed.poll() is not None or at_work(made, 6))
    until.touch()
    assert resumed.wait(timeout=200) == 0, resumed.stdout and resumed.stdout.read()
    outcomes = {seed: run.data.tags["ladder.outcome"] for seed, run in parents(made).items()}
    assert outcomes == dict.fromkeys((1, 2, 3), "healthy")
    assert "RUNNING" not in {run.info.status for run in made.runs()} and not made.trainers()


def test_those_for_which_there_is_no_room_wait(experiment: Any) -> None:
    made = seeds(experiment, trainer__parameters={"updates": 10}, launcher__request={"cores": 10_000.0})
    began = time.monotonic()
    result = made.run()
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("queued for 10000 cores") == 2 and time.monotonic() - began > 3
    assert "in the queue" in result.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_those_that_wait_for_room_are_cut_off_in_order(experiment: Any, how: signal.Signals) -> None:
    made = seeds(experiment, launcher__request={"cores": 10_000.0})
    until = made.folder / "until"
    made.values["trainer.parameters"] = {"until": str(until)}
    made.__post_init__()
    process = made.start()
    eventually(lambda: process.poll() is not None or (at_work(made, 1) and len(parents(made)) == 3))
    process.send_signal(how)
    assert process.wait(timeout=200) == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        said = process.stdout.read() if process.stdout else ""
        assert "error" not in said.lower(), said
        assert {run.data.tags["ladder.outcome"] for run in parents(made).values()} == {"interrupted"}
    eventually(lambda: not made.trainers())
    until.touch()
    resumed = made.start(made.resume_command())
    assert resumed.wait(timeout=90) == 0, resumed.stdout and resumed.stdout.read()
    assert {run.data.tags["ladder.outcome"] for run in parents(made).values()} == {"healthy"}
