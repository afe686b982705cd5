"""Infrastructure that really fails: a process that dies, hangs, runs out of memory, or is told to stop."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.conftest import LIGHT, evidence


@pytest.mark.parametrize(
    ("kind", "verdict", "says"),
    [("crash", "crash", "SIGSEGV"), ("out_of_memory", "out_of_memory", "exit code"), ("hang", "hang", "silent")],
)
def test_infrastructure_failure_is_retried_on_the_same_rung(
    kind: str, verdict: str, says: str, experiment: Any
) -> None:
    made = experiment(
        faults=[{"kind": kind, "at_update": 6, "times": 1}],
        training__checkpoint_every_episodes=2,
        training__workers=2 if kind == "crash" else 1,
        budget__hang_after_seconds=10,
    )
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    failed, retried = made.attempts
    assert failed.data.tags["ladder.verdict"] == verdict and failed.info.status == "FAILED"
    assert says in json.dumps(evidence(failed))
    assert evidence(failed)[0]["detail"]["log_tail"]
    assert retried.data.tags["ladder.rung"] == failed.data.tags["ladder.rung"] == "v3"
    start = json.loads(retried.data.tags["ladder.warm_start"])
    assert start["run_id"] == failed.info.run_id and start["episode"] > 0
    assert retried.info.status == "FINISHED"
    assert not list(made.scratch.iterdir())
    assert not list(made.root.glob("attempts/*/tmp"))
    assert made.parent.data.tags["ladder.settled_rung"] == "v3"
    games = retried.data.params["environment.num_envs"]
    assert games == ("2" if kind == "out_of_memory" else "4")


def test_killed_worker_is_a_crash_that_says_so(experiment: Any) -> None:
    made = experiment(training__episodes=150, training__workers=2, ladder__rungs=["v3"])
    process = made.start()
    made.wait_for_spooled(5, process)
    made.worker().kill()
    assert process.wait(timeout=120) == 0
    failed, retried = made.attempts
    assert failed.data.tags["ladder.verdict"] == "crash"
    assert "worker 1 is gone, exit code -9" in json.dumps(evidence(failed))
    assert json.loads(retried.data.tags["ladder.warm_start"])["run_id"] == failed.info.run_id
    assert retried.info.status == "FINISHED"


FRAGILE = """
import json, os
config = json.load(open(os.environ["LADDER_ATTEMPT"]))["config"]
import mlflow
with mlflow.start_run():
    mlflow.log_metric("loss", 1.0, step=1)
    mlflow.log_metric("loss", 1 / config["policy"]["gat_frozen"], step=2)
"""


def test_spent_retries_step_down(experiment: Any) -> None:
    """A trainer that raises, until the configuration is another one."""
    frozen = {"name": "frozen", "set": {"policy.gat_frozen": True}}
    made = experiment(budget__retries=1, ladder__rungs=["v3", frozen])
    made.train_with("train.py", FRAGILE)
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ZeroDivisionError" in json.dumps(evidence(made.attempts[0]))
    assert [run.data.tags["ladder.rung"] for run in made.attempts] == ["v3", "v3", "frozen"]
    assert [run.data.tags["ladder.verdict"] for run in made.attempts] == ["crash", "crash", "healthy"]


MISTYPED = """
import os
import mlflow
settings = {"rate": 1.0}
print(f"process {os.getpid()}: rate", settings["rte"])
"""


def test_a_start_that_cannot_succeed_is_tried_twice_and_goes_on_when_it_is_mended(experiment: Any) -> None:
    slower = {"name": "slower", "set": {"trainer.parameters.rate": 0.5}}
    made = experiment(budget__retries=2, ladder__rungs=["v3", slower])
    made.train_with("train.py", MISTYPED)
    result = made.run()
    assert result.returncode == 4, result.stdout + result.stderr
    assert len(made.attempts) == 2 and made.parent.data.tags["ladder.outcome"] == "error"
    assert "error: the trainer cannot start: KeyError: 'rte' (twice alike)" in result.stdout
    (made.folder / "train.py").write_text(MISTYPED.replace("rte", "rate") + SAYS_SOMETHING)
    resumed = made.resume()
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert [run.data.tags["ladder.rung"] for run in made.attempts] == ["v3", "v3", "v3"]
    assert made.parent.data.tags["ladder.outcome"] == "healthy"


SAYS_SOMETHING = """
with mlflow.start_run():
    mlflow.log_metric("loss", 1.0, step=1)
"""


def test_nan_gradients_are_survived(experiment: Any) -> None:
    made = experiment(faults=[{"kind": "nan_gradient", "at_update": 2, "times": 3}], ladder__rungs=["v3"])
    assert made.run_here().outcome == "healthy"
    (attempt,) = made.attempts
    skipped = made.client.get_metric_history(attempt.info.run_id, "nonfinite_batches")
    assert [point.value for point in skipped][:3] == [0.0, 3.0, 0.0]


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_told_to_stop(name: signal.Signals, experiment: Any) -> None:
    """Ctrl-C, a polite kill, a closed terminal: checkpoint, KILLED, exit 130.

    It takes 3 to 5 s on two idle cores, and 12 s have been seen while six processes shared them.
    """
    # One that looks seldom is not slower to stop.
    seconds = 6.0 if name == signal.SIGHUP else 1.0
    workers = 2 if name == signal.SIGTERM else 1
    made = experiment(training__episodes=100_000, training__workers=workers, health__poll_seconds=seconds)

    def as_in_the_background() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who sends it to a shell's background job all the same is heeded
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where these tests themselves run under nohup

    # Ctrl-C reaches a process as a person starts it; the others are forked.
    process = made.start(**{"preexec_fn": as_in_the_background} if name == signal.SIGINT else {})
    made.wait_for_updates(3, process)
    process.send_signal(name)
    assert process.wait(timeout=200) == 130
    said = process.stdout.read()
    assert "interrupted: asked to stop" in said and "go on with it" in said
    assert "not begun" not in said  # no other seed was to follow
    (attempt,) = made.attempts
    assert attempt.info.status == made.parent.info.status == "KILLED"
    assert attempt.data.tags["ladder.verdict"] == made.parent.data.tags["ladder.outcome"] == "interrupted"
    newest = max((made.root / "attempts" / attempt.info.run_id / "checkpoints").glob("0*.json"))
    last = made.client.get_metric_history(attempt.info.run_id, "update")[-1]
    assert json.loads(newest.read_text())["step"] == last.step
    assert not made.trainers()


def test_killed_orchestrator_leaves_no_trainer_behind(experiment: Any) -> None:
    made = experiment(training__episodes=100_000, training__workers=2)
    process = made.start()
    made.wait_for_updates(1, process)
    assert len(made.trainers()) >= 2  # the trainer and its worker
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(made.trainers(), timeout=200)
    assert not alive


def test_orchestrator_killed_while_the_trainer_starts_leaves_none_behind(experiment: Any) -> None:
    """Long before the trainer has imported anything that could watch."""
    made = experiment(training__episodes=100_000)
    process = made.start()
    until = time.monotonic() + 200
    while not made.trainers() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(1)
    _, alive = psutil.wait_procs(made.trainers(), timeout=200)
    assert not alive


def test_nohup_and_a_closed_pipe_end_no_experiment(experiment: Any, tmp_path: Path) -> None:
    """`nohup ladder run … | head -1`: the reader goes, then the terminal; the run goes on, and its log is whole."""
    done = tmp_path / "done"
    made = experiment(trainer__command=LIGHT, trainer__parameters={"until": str(done)})
    process = made.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    made.wait_for_updates(2, process)
    process.send_signal(signal.SIGHUP)
    made.wait_for_updates(round(made.attempts[0].data.metrics["update"]) + 3, process)  # it goes on
    done.touch()
    assert process.wait(timeout=120) == 0
    assert made.parent.info.status == "FINISHED"
    (log,) = (made.root / "experiments").glob("*.log")
    assert "the terminal is gone" in log.read_text() and "healthy: v3 trained to the end" in log.read_text()


def test_trainer_that_ignores_a_polite_request_is_killed(experiment: Any) -> None:
    made = experiment()
    made.train_with("stubborn.sh", "trap '' TERM\nwhile true; do sleep 1; done\n")
    process = made.start()
    until = time.monotonic() + 200
    while not made.trainers() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=200) == 130
    assert not made.trainers()
    assert made.attempts[0].info.status == "KILLED"


def test_damaged_checkpoint_is_passed_over(experiment: Any) -> None:
    """While the trainer hangs, its newest checkpoint is damaged: the retry uses the one before."""
    fault = {"kind": "hang", "at_update": 7, "times": 1}
    made = experiment(faults=[fault], training__checkpoint_every_episodes=2, budget__hang_after_seconds=10.0)
    process = made.start()
    made.wait_for_spooled(6, process)
    folder = made.root / "attempts" / made.attempts[0].info.run_id / "checkpoints"
    newest = max(folder.glob("0*.pt"))
    newest.write_bytes(newest.read_bytes()[:-10])
    assert process.wait(timeout=180) == 0
    retried = made.attempts[1]
    used = json.loads((made.root / "attempts" / retried.info.run_id / "attempt.json").read_text())["warm_start"]
    assert used is not None and used["checkpoint"] != str(newest)
    assert retried.info.status == "FINISHED"


def test_stopped_trainer_and_its_children_are_gone(experiment: Any) -> None:
    """A trainer that ignores SIGTERM and has a grandchild: the whole process group is ended."""
    made = experiment(budget__hang_after_seconds=3, budget__retries=0, ladder__rungs=["v3"])
    made.train_with("stubborn.sh", "trap '' TERM\nsleep 1000 &\nsleep 1000\n")
    result = made.run()
    assert result.returncode == 3, result.stdout + result.stderr
    assert made.attempts[0].data.tags["ladder.verdict"] == "hang"
    assert not made.trainers()
