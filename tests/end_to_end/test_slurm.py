"""The whole program on a real Slurm: `ladder` as a person starts it, with this project's trainer and with a script."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from benchmarks.slurm_cluster import SlurmCluster, why_not
from tests.end_to_end.conftest import LIGHT, Experiment
from tests.end_to_end.study import Study, assert_both_sides_agree, assert_nothing_lost_or_doubled
from tests.processes.maker import eventually

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    with contextlib.closing(SlurmCluster()) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster


def job_of(cluster: SlurmCluster, made: Experiment, process: Any, updates: int = 3) -> str:
    """The job of the only attempt, once it has reported so many updates."""
    made.wait_for_spooled(updates, process)
    (job,) = cluster.run("squeue", "-h", "-o", "%i", "--states=RUNNING").split()
    return job


def steps(made: Experiment, run: Run) -> list[int]:
    """The steps of its updates: each once, none missing."""
    numbers = [round(point.value) for point in made.client.get_metric_history(run.info.run_id, "update")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return numbers


def nothing_is_left(cluster: SlurmCluster, made: Experiment) -> None:
    eventually(lambda: not cluster.run("squeue", "-h").strip())
    assert not made.trainers() and "RUNNING" not in {run.info.status for run in made.runs()}


def test_this_projects_trainer_goes_on_in_the_same_run_after_preemption(cluster: SlurmCluster, experiment: Any) -> None:
    more = {"training__episodes": 60, "training__checkpoint_every_episodes": 4, "launcher__kind": "slurm"}
    made = experiment(**more, launcher__options=["--exclusive", "--nodelist=n1", "--mem=3000M"])
    process = made.start()
    job_of(cluster, made, process, 6)
    urgent = ("--partition=urgent", "--exclusive", "--nodelist=n1", "--output=/dev/null", "--wrap=sleep 1")
    cluster.run("sbatch", *urgent)
    assert process.wait(timeout=200) == 0, process.stdout and process.stdout.read()
    said = process.stdout.read()
    assert "preempted" in said and "in the queue" in said
    (attempt,) = made.attempts
    assert attempt.info.status == "FINISHED" and steps(made, attempt)[0] == 1
    undisturbed = Experiment(
        made.folder / "undisturbed", made.values | {"launcher.kind": "local", "launcher.options": []}
    )
    assert undisturbed.run_here().outcome == "healthy"
    for metric in ("alpha_entropy", "score_window", "gradient_norm"):
        ours = made.client.get_metric_history(attempt.info.run_id, metric)
        theirs = undisturbed.client.get_metric_history(undisturbed.attempts[0].info.run_id, metric)
        assert [(each.step, each.value) for each in ours] == [(each.step, each.value) for each in theirs]
    nothing_is_left(cluster, made)


def orphaned(cluster: SlurmCluster, experiment: Any) -> tuple[Experiment, Path, str]:
    """An experiment whose orchestrator was killed, the file at which its job ends, and the job's id."""
    made: Experiment = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none")
    until = made.folder / "until"
    made.values["trainer.parameters"] = {"until": str(until)}
    made.__post_init__()
    process = made.start()
    job = job_of(cluster, made, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return made, until, job


def test_the_job_outlives_its_orchestrator_and_resume_attaches_to_it(cluster: SlurmCluster, experiment: Any) -> None:
    made, until, job = orphaned(cluster, experiment)
    assert re.search(rf"at work on n\d, slurm job {job}", made.heard("status"))
    before = made.spooled()
    eventually(lambda: made.spooled() > before + 3)
    resumed = made.start(made.resume_command())
    made.wait_for_updates(before + 5, resumed)
    until.touch()
    assert resumed.wait(timeout=200) == 0, resumed.stdout.read()
    (attempt,) = made.attempts
    assert attempt.info.status == "FINISHED" and steps(made, attempt)[0] == 1
    nothing_is_left(cluster, made)


def test_what_a_job_has_done_is_kept_when_status_comes_before_resume(cluster: SlurmCluster, experiment: Any) -> None:
    made, until, _ = orphaned(cluster, experiment)
    until.touch()
    eventually(lambda: not cluster.run("squeue", "-h").strip())
    done = made.spooled()
    assert "had ended meanwhile (healthy)" in made.heard("status")
    resumed = made.start(made.resume_command())
    assert resumed.wait(timeout=200) == 0, resumed.stdout.read()
    (attempt,) = made.attempts
    assert attempt.data.tags["ladder.verdict"] == "healthy" and len(steps(made, attempt)) == done
    assert made.parent.data.tags["ladder.outcome"] == "healthy"
    nothing_is_left(cluster, made)


def test_a_persons_scancel_ends_the_experiment_in_order(cluster: SlurmCluster, experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none")
    process = made.start()
    cluster.run("scancel", job_of(cluster, made, process))
    assert process.wait(timeout=200) == 130
    assert made.parent.data.tags["ladder.outcome"] == "interrupted" and len(made.attempts) == 1
    assert "was cancelled" in made.attempts[0].data.tags["ladder.evidence"]
    nothing_is_left(cluster, made)


def test_ctrl_c_ends_the_job(cluster: SlurmCluster, experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none")
    process = made.start()
    job_of(cluster, made, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=200) == 130
    nothing_is_left(cluster, made)


def test_check_asks_slurm_and_looks_from_a_node(cluster: SlurmCluster, experiment: Any) -> None:
    made = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none")
    words = ["check", str(made.file), "--seconds", "2"]
    result = made.ladder(*words, f"tracking.root={made.root}")
    assert "yes jobs: Job" in result.stdout and "at the same path on n" in result.stdout, result.stdout + result.stderr
    assert "1 of 1 rungs start and log" in result.stdout and result.returncode == 0
    refused = made.ladder(*words, f"tracking.root={made.root}", "launcher.options=[--partition=nope]")
    assert refused.returncode == 2 and "NO jobs: slurm takes no such job" in refused.stdout
    assert not [
        path for path in [*made.folder.iterdir(), *Path(made.root).iterdir()] if path.name.startswith(".ladder")
    ]
    assert os.environ["SLURM_CONF"]


def test_a_place_is_held_in_the_queue_for_the_next_rung(cluster: SlurmCluster, experiment: Any) -> None:
    condition = {"metric": "update", "above": 0}
    rule = {"name": "always", "verdict": "gradient_explosion", "conditions": [condition], "window": 90, "patience": 90}
    rungs = ["v3", {"name": "good", "set": {"health.rules": "none", "health.extra": []}}]
    made = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none", health__extra=[rule])
    made.values |= {"ladder.rungs": rungs, "ladder.speculate": True, "ladder.warm_start": False}
    until = made.folder / "until"
    made.values["trainer.parameters"] = {"until": str(until)}
    made.__post_init__()
    process = made.start()
    job_of(cluster, made, process)
    eventually(lambda: len(cluster.run("squeue", "-h", "-o", "%i", "--states=RUNNING").split()) == 2)
    place = max(map(int, cluster.run("squeue", "-h", "-o", "%i").split()))
    assert len(made.attempts) == 1 and len(list((made.root / "attempts").iterdir())) == 1
    eventually(lambda: len(made.attempts) == 2 and made.attempts[1].data.metrics.get("update", 0) > 2)
    assert f"slurm job {place}" in made.attempts[1].data.tags["ladder.job"]
    until.touch()
    assert process.wait(timeout=200) == 0
    assert [run.data.tags["ladder.verdict"] for run in made.attempts] == ["gradient_explosion", "healthy"]
    assert not list(made.root.glob("attempts/*/next-*"))
    nothing_is_left(cluster, made)


def test_a_place_that_was_held_in_vain_leaves_nothing(cluster: SlurmCluster, experiment: Any) -> None:
    (busy,) = cluster.run(
        "sbatch", "--parsable", "--exclusive", "--nodelist=n2", "--output=/dev/null", "--wrap=sleep 600"
    ).split()
    rule = {"name": "always", "verdict": "gradient_explosion", "conditions": [{"metric": "update", "above": 0}]}
    rule |= {"window": 900, "patience": 40}
    made = experiment(trainer__command=LIGHT, launcher__kind="slurm", health__rules="none", health__extra=[rule])
    rungs = ["v3", {"name": "good", "set": {"health.extra": []}}]
    made.values |= {"ladder.speculate": True, "launcher.options": ["--exclusive"], "ladder.rungs": rungs}
    made.values["trainer.parameters"] = {"updates": 30}
    made.__post_init__()
    process = made.start()
    eventually(lambda: len(cluster.run("squeue", "-h", "-o", "%i", "--states=PENDING").split()) == 1)
    assert process.wait(timeout=200) == 0
    assert len(made.attempts) == 1 and not list(made.root.glob("attempts/*/next-*"))
    cluster.run("scancel", busy)
    nothing_is_left(cluster, made)


def test_trials_of_a_study_are_jobs_and_a_killed_study_goes_on(
    cluster: SlurmCluster, tmp_path: Path, empty_database: Path
) -> None:
    values = {"study.trials": 4, "study.workers": 2, "study.seed": 9, "training.learning_rate": 1e-5, "seconds": 4.0}
    study = Study(tmp_path, empty_database, {**values, "launcher.kind": "slurm", "launcher.options": ["--mem=500M"]})
    process = study.start()
    study.wait_until(lambda: len(cluster.run("squeue", "-h", "-o", "%i", "--states=RUNNING").split()) == 2, process)
    workers = study.processes("pipeline.tuning.worker")
    assert len(workers) == 2
    assert not [each for each in workers if "libtorch" in Path(f"/proc/{each.pid}/maps").read_text()]
    for each in (process, *workers):
        each.kill()
    process.wait()
    left = set(cluster.run("squeue", "-h", "-o", "%i").split())
    assert left  # they have outlived their orchestrators
    again = study.run()
    assert again.returncode == 0, again.stdout + again.stderr
    eventually(lambda: not cluster.run("squeue", "-h").strip())
    assert_both_sides_agree(study)
    assert_nothing_lost_or_doubled(study, 4)
    assert not study.processes("synthetic.py")


def test_ctrl_c_ends_the_jobs_of_a_study(cluster: SlurmCluster, tmp_path: Path, empty_database: Path) -> None:
    values = {"study.trials": 4, "study.workers": 2, "seconds": 60.0, "launcher.kind": "slurm"}
    study = Study(tmp_path, empty_database, values)
    process = study.start()
    study.wait_until(lambda: len(cluster.run("squeue", "-h", "-o", "%i", "--states=RUNNING").split()) == 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    eventually(lambda: not cluster.run("squeue", "-h").strip())
    assert_both_sides_agree(study)
