"""What was cut off goes on: everything is read back from the store and from the attempts' folders."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from pipeline.config import ExperimentConfig
from pipeline.experiment import recovery
from pipeline.experiment.past import read_config
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.end_to_end.conftest import LIGHT, ON_BOTH, Experiment, evidence

LONG = 100_000


def whole(made: Experiment, run: Run) -> list[int]:
    """The steps of the run's updates: each is there once, none is missing, and all metrics have them."""
    history = made.client.get_metric_history(run.info.run_id, "update")
    numbers = [round(point.value) for point in history]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    steps = [point.step for point in history]
    for other in ("alpha_entropy", "episodes"):
        assert [point.step for point in made.client.get_metric_history(run.info.run_id, other)] == steps
    return steps


def kill(process: subprocess.Popen[str], made: Experiment) -> None:
    """The orchestrator alone; and nothing that it has started outlives it."""
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(made.trainers(), timeout=200)
    assert not alive


def left_running(made: Experiment) -> list[Run]:
    return [run for run in made.runs() if run.info.status == "RUNNING"]


@ON_BOTH
def test_orchestrator_killed_at_any_moment(experiment: Any) -> None:
    """kill -9, again and again: in the end one run with one curve, the same as that of a run nobody has disturbed."""
    made = experiment(training__episodes=100, training__checkpoint_every_episodes=4)
    chance = random.Random(1)
    process, killings = made.start(), 0
    while killings < (2 if made.server else 3):
        time.sleep(chance.uniform(0, 0.5) if killings % 2 else 0)
        if killings:
            made.wait_for_spooled(killings * 8, process)
        else:  # in the middle of its start
            time.sleep(chance.uniform(0, 1))
        kill(process, made)
        killings += 1
        started = made.folder / "root" / "experiments"
        process = made.start(made.resume_command() if any(started.glob("*.log")) else made.command)
    assert process.wait(timeout=200) == 0, process.stdout and process.stdout.read()
    (attempt,) = made.attempts
    assert attempt.info.status == made.parent.info.status == "FINISHED"
    assert whole(made, attempt)[0] == 64 and attempt.data.metrics["episodes"] >= 100
    assert made.parent.data.metrics["attempts"] == 1
    table = json.loads(Path(made.client.download_artifacts(made.parent.info.run_id, "attempts.json")).read_text())
    assert len(table["data"]) == 1

    if made.server:
        return  # a curve that is whole is the same in any store
    undisturbed = Experiment(made.folder / "undisturbed", made.values)
    assert undisturbed.run_here().outcome == "healthy"
    for metric in ("alpha_entropy", "score_window", "gradient_norm", "random/score"):
        ours = made.client.get_metric_history(attempt.info.run_id, metric)
        theirs = undisturbed.client.get_metric_history(undisturbed.attempts[0].info.run_id, metric)
        assert [(point.step, point.value) for point in ours] == [(point.step, point.value) for point in theirs]

    assert "nothing to resume" in made.heard("resume")  # exit code 0, as of the newest experiment
    assert "has ended, healthy" in made.refusal(made.parent.info.run_id)


def test_who_reads_finds_nothing_running_behind_a_dead_orchestrator(experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT)
    process = made.start()
    made.wait_for_updates(2, process)
    assert "RUNNING" in made.heard("status") and left_running(made)
    kill(process, made)
    said = made.heard("status", "--follow")  # which ends, as nothing runs any more
    assert "was left RUNNING by process" in said and said.count("KILLED") == 2 and not left_running(made)
    assert "small seed 1: interrupted" in made.heard("compare")
    assert "no failing rule fires" in made.heard("diagnose", made.parent.info.run_id[:8])


def test_power_cut(experiment: Any) -> None:
    """kill -9 of everything at once. The attempt before it had failed: it is not tried again, and counts once."""
    fault = {"kind": "crash", "at_update": 3, "times": 1}
    made = experiment(faults=[fault], training__episodes=200, training__checkpoint_every_episodes=2, budget__retries=1)
    process = made.start()
    made.wait_for_updates(8, process)
    for each in (process, *made.trainers()):
        each.kill()
    process.wait()
    assert len(made.attempts) == 2 and left_running(made)
    result = made.resume()
    assert result.returncode == 0, result.stdout + result.stderr
    crashed, resumed = made.attempts
    assert crashed.data.tags["ladder.verdict"] == "crash" and crashed.info.status == "FAILED"
    assert resumed.data.tags["ladder.verdict"] == "healthy" and resumed.info.status == "FINISHED"
    whole(made, resumed)
    assert made.parent.data.tags["ladder.outcome"] == "healthy" and made.parent.data.metrics["attempts"] == 2
    assert not left_running(made) and not made.trainers()


def begun_on_a_gpu(store: Store, parent: Run) -> ExperimentConfig:
    return read_config(store, parent).with_values({"training.device": "cuda"})


@ON_BOTH
def test_interrupted_experiment_goes_on(experiment: Any) -> None:
    made = experiment(training__episodes=LONG)
    process = made.start()
    made.wait_for_updates(5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (before,) = made.attempts
    assert before.info.status == made.parent.info.status == "KILLED"

    assert "goes on as it began" in made.refusal("training.episodes=10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(recovery, "read_config", begun_on_a_gpu)
        assert "what was begun on a GPU goes on where there is one" in made.refusal()
    process = made.start(made.resume_command(made.parent.info.run_id))
    made.wait_for_updates(round(before.data.metrics["update"]) + 3, process)
    (during,) = made.attempts
    assert during.info.status == "RUNNING" and "ladder.verdict" not in during.data.tags
    assert "ladder.outcome" not in made.parent.data.tags

    # Two on one experiment: the second refuses, and names the first.
    assert f"process {process.pid} on " in made.refusal() and process.poll() is None

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 130
    (after,) = made.attempts
    assert after.info.run_id == before.info.run_id and after.info.status == "KILLED"
    assert whole(made, after)[0] == 64
    assert after.data.metrics["cost/seconds"] > before.data.metrics["cost/seconds"]


def test_budget_of_hours_counts_on(experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT, budget__hours=4 / 3600, tracking__publish=False)
    result = made.run()
    assert result.returncode == 130 and "budget.hours" in result.stdout
    assert "compare.html" in {
        each.path for each in made.client.list_artifacts(made.parent.info.run_id)
    }  # in good order
    assert "budget.hours" in made.refusal()
    result = made.resume(f"budget.hours={10 / 3600}")
    assert result.returncode == 130, result.stdout + result.stderr
    first, second = made.attempts  # such a trainer knows no checkpoints
    assert first.info.status == second.info.status == "KILLED"
    assert second.data.metrics["cost/seconds"] < 8  # of the 10
    assert second.data.params["tracking.publish"] == "False"  # it goes on as it began, but for what was given
    study = Store(default_uri(made.root), made.root).start_run(ExperimentConfig(), "study", {"ladder.kind": "study"})
    assert "is a study, not an experiment" in made.refusal(study)


PLAIN = """
import os, time
import mlflow
with mlflow.start_run():
    for step in range(40):
        mlflow.log_metric("loss", 1.0, step=step)
        time.sleep(0.1)
"""


@pytest.fixture
def plain(experiment: Any) -> Experiment:
    """An experiment with a trainer of somebody's own that knows no checkpoints."""
    made: Experiment = experiment()
    made.train_with("train.py", PLAIN, health__poll_seconds=0.2)
    return made


def wait_for_loss(made: Experiment, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while time.monotonic() < until:
        assert process.poll() is None
        if (made.root / "mlflow.db").exists() and any("loss" in run.data.metrics for run in made.runs()):
            return
        time.sleep(0.2)
    raise AssertionError("nothing was logged")


def test_trainer_of_somebody_else_starts_again_in_a_run_of_its_own(plain: Experiment) -> None:
    process = plain.start()
    wait_for_loss(plain, process)
    kill(process, plain)
    result = plain.resume()
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = plain.attempts
    assert first.info.status == "KILLED" and first.data.tags["ladder.verdict"] == "interrupted"
    assert "is gone" in json.dumps(evidence(first))
    assert second.info.status == "FINISHED"
    history = plain.client.get_metric_history(second.info.run_id, "loss")
    assert [point.step for point in history] == list(range(40))


def test_seeds_that_were_to_follow_follow(experiment: Any, tmp_path: Path) -> None:
    done = tmp_path / "done"
    made = experiment(trainer__command=LIGHT, trainer__parameters={"until": str(done)}, health__poll_seconds=0.2)
    process = made.start([*made.command, "training.seed=[1,2]"])
    made.wait_for_updates(1, process)
    kill(process, made)
    assert made.parent.info.status == "RUNNING"  # of the second seed there is nothing yet
    done.touch()
    result = made.resume()
    assert result.returncode == 0, result.stdout + result.stderr
    parents = [run for run in made.runs() if run.data.tags["ladder.kind"] == "experiment"]
    assert sorted((run.data.params["training.seed"], run.info.status) for run in parents) == [
        ("1", "FINISHED"),
        ("2", "FINISHED"),
    ]
    assert "over 2 experiments" in result.stdout


def test_an_earlier_nights_runs_are_ended_but_not_those_of_the_living(plain: Experiment) -> None:
    dead = plain.start()
    wait_for_loss(plain, dead)
    kill(dead, plain)
    gone = {run.info.run_id for run in plain.runs()}

    alive = Experiment(plain.folder / "alive", plain.values)
    alive.root = plain.root
    living = alive.start()
    until = time.monotonic() + 200
    # Its trainer is at work: the orchestrator itself only reads now, and is not stopped while it holds the database.
    while not any(run.data.metrics and run.info.run_id not in gone for run in plain.runs()):
        assert time.monotonic() < until
        time.sleep(0.2)
    statuses = {run.info.run_id: run.info.status for run in plain.runs()}
    assert {run for run in statuses if statuses[run] == "KILLED"} == gone
    living.send_signal(signal.SIGSTOP)  # it lives, even if it says nothing
    third = Experiment(plain.folder / "third", plain.values)
    third.root = plain.root
    result = third.run()
    living.send_signal(signal.SIGCONT)
    assert result.returncode == 0, result.stderr
    assert living.wait(timeout=100) == 0
    statuses = {run.info.run_id: run.info.status for run in plain.runs()}
    assert sorted(statuses.values()) == ["FINISHED"] * 4 + ["KILLED"] * 2


def test_daemon_of_a_trainer_dies_with_the_orchestrator(experiment: Any) -> None:
    """A grandchild in a session of its own knows no leash and no process group."""
    made = experiment()
    made.train_with("daemon.sh", "trap '' TERM\nsetsid sleep 1000 &\nsleep 1000\n")
    process = made.start()
    until = time.monotonic() + 200
    while "setsid" not in str(daemons := [each.name() for each in made.trainers()]) and time.monotonic() < until:
        if daemons.count("sleep") == 2:
            break
        time.sleep(0.05)
    assert len(made.trainers()) == 3
    kill(process, made)
    assert not made.trainers()


def test_bad_requests_are_one_clear_line(experiment: Any) -> None:
    made = experiment(root_there=False)
    assert "nothing to resume" in made.refusal() and not made.root.exists()
    assert "one experiment at a time" in made.refusal("one", "two")
    assert "nearest valid: tracking.root" in made.refusal("tracking.rot=x")
