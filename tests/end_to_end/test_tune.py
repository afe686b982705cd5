"""`ladder tune`: real processes, real stores, and a trainer that takes no time (benchmarks/synthetic.py)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from optuna.trial import TrialState

from benchmarks.postgres import PASSWORD, binaries, cluster
from pipeline.cli import main
from pipeline.experiment_file import load_experiment
from pipeline.tuning.trials import HEALTH, superseded
from tests.conftest import SMALL
from tests.end_to_end import forked
from tests.end_to_end.conftest import REPOSITORY, own_environment
from tests.end_to_end.study import Study, assert_both_sides_agree, assert_nothing_lost_or_doubled
from tests.end_to_end.test_terminal import on_a_terminal

# One worker for the tests that share a study.
pytestmark = pytest.mark.xdist_group("tune")

MakeStudy = Callable[[dict[str, Any]], Study]


@pytest.fixture
def make_study(tmp_path: Path, empty_database: Path) -> MakeStudy:
    return partial(Study, tmp_path, empty_database)


# A study from beginning to end

TRIALS = 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Study:
    """Six trials, two workers. Of this seed, the third is the best, and two are unhealthy. The default has −24."""
    values = {
        "study.trials": TRIALS,
        "study.workers": 2,
        "study.seed": 9,
        "study.trial": {"trainer.parameters.updates": 20},
        "training.learning_rate": 1e-5,
        "seconds": 1.0,
        "updates": 24,
    }
    made = Study(tmp_path_factory.mktemp("finished"), empty_database, values)
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{TRIALS} of {TRIALS} trials" in result.stdout and "Traceback" not in result.stdout + result.stderr
    made.said = result.stdout  # type: ignore[attr-defined]
    return made


def test_trials_are_nested_runs_that_agree_with_optuna(finished: Study) -> None:
    assert_both_sides_agree(finished)
    assert_nothing_lost_or_doubled(finished, TRIALS)
    assert finished.parent.info.status == "FINISHED" and finished.parent.data.tags["ladder.outcome"] == "tuned"
    assert len({trial.user_attrs["worker"] for trial in finished.trials()}) == 2
    assert finished.trials()[0].params["training.learning_rate"] == 1e-5  # the default comes first
    assert finished.optuna.best_trial.number == 1  # of a fixed seed


def test_abnormal_verdict_prunes_at_once_and_is_infeasible(finished: Study) -> None:
    """Three updates too high fail; the trainer would have logged twenty, over a second."""
    unhealthy = [trial for trial in finished.trials() if trial.params["training.learning_rate"] > 1e-3]
    assert len(unhealthy) == 2
    for trial in unhealthy:
        assert trial.state == TrialState.PRUNED and trial.constraints == {HEALTH: 1.0}
        assert "gradient_explosion" in trial.user_attrs["reason"]
        (attempt,) = [
            run
            for run in finished.runs("attempt")
            if run.data.tags["mlflow.parentRunId"] == trial.user_attrs["mlflow.run_id"]
        ]
        assert attempt.data.tags["ladder.verdict"] == "gradient_explosion" and attempt.info.status == "FAILED"
    assert any(
        len(finished.client.get_metric_history(run.info.run_id, "gradient_norm")) < 20
        for run in finished.runs("attempt")
        if run.data.tags["ladder.verdict"] == "gradient_explosion"
    )
    assert all(t.constraints == {HEALTH: 0.0} for t in finished.trials() if t not in unhealthy)


def test_intermediate_values_are_reported_at_fixed_points(finished: Study) -> None:
    complete = [trial for trial in finished.trials() if trial.state == TrialState.COMPLETE]
    assert complete
    for trial in complete:
        assert list(trial.intermediate_values) == list(range(5, 101, 5))
        assert trial.intermediate_values[100] == trial.value


def test_results_are_on_the_parent_and_the_best_is_an_experiment(finished: Study) -> None:
    for name in ("history.png", "slices.png", "tuned.yaml", "trials.csv", "study.yaml"):
        assert finished.artifact(name).stat().st_size > 100, name
    best = finished.optuna.best_trial
    assert finished.parent.data.tags["optuna.best"] == str(best.number)
    assert f"| {best.number} | {best.value:.4g}" in finished.parent.data.tags["mlflow.note.content"]
    tuned = finished.root / "studies" / finished.parent.info.run_id / "tuned.yaml"
    assert tuned.read_text() == finished.artifact("tuned.yaml").read_text()
    assert str(tuned) in finished.said  # type: ignore[attr-defined]
    config = load_experiment(tuned)
    assert config.training.learning_rate == best.params["training.learning_rate"]
    assert config.health.extra[0].name == "explodes" and config.experiment.name == "synthetic"
    command = [sys.executable, "-m", "pipeline", "run", str(tuned), f"tracking.root={finished.folder / 'again'}"]
    result = forked.complete(command, cwd=finished.folder, env=finished.environment, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr


def test_finished_study_has_nothing_left_to_do_and_others_are_refused(
    finished: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same again changes nothing; another objective, range of choices or experiment could not be compared."""
    before = finished.trials()
    assert main(finished.command()[3:]) == 0
    assert finished.trials() == before and "goes on after 6" in capsys.readouterr().out
    for word, says in (
        ("study.objective.metric=gradient_norm", "study.objective"),
        ("study.space.training.gamma.float=[0.9,0.999]", "study.space.training.gamma was not tuned"),
        ("study.space.training.ppo_epochs={int: [1, 10], log: true}", "study.space.training.ppo_epochs was"),
        ("training.batch_size=128", "training.batch_size was 256, now 128"),
    ):
        assert main(finished.command(word)[3:]) == 2
        said = capsys.readouterr()
        assert says in said.err and len(said.err.strip().splitlines()) == 1 and not said.out, said.err
    assert finished.trials() == before and finished.parent.info.status == "FINISHED"
    assert main(["status", f"tracking.root={finished.root}"]) == 0
    shown = capsys.readouterr().out
    assert "synthetic" in shown and "tuned" in shown and finished.parent.info.run_id in shown


def test_validation_on_fresh_seeds(finished: Study, capsys: pytest.CaptureFixture[str]) -> None:
    """The best against the default at the base's own length, two seeds each, which cannot show a gain yet.

    The trainer's score is higher by 0.1 × (seed modulo 7).
    """
    assert main(finished.command("--validate", "2", "health.poll_seconds=0.2")[3:]) == 0
    assert "a gain is not shown: the best is better than the default with probability 1.00" in capsys.readouterr().out
    validated = json.loads(finished.artifact("validation.json").read_text())
    best, default = finished.optuna.best_trial.value, finished.trials()[0].value
    for name, value in (("tuned", best), ("default", default)):
        luck = [0.1 * (seed % 7) - 0.1 for seed in (10001, 10002)]
        assert sorted(validated[name]) == pytest.approx(sorted(value + each for each in luck))
    assert not validated["real"] and validated["p_value"] == pytest.approx(1 / 3) and validated["trial"] == 1
    runs = finished.runs("validation")
    assert len(runs) == 4 and {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {finished.parent.info.run_id}
    of_these = {run.info.run_id for run in runs}
    attempts = [run for run in finished.runs("attempt") if run.data.tags["mlflow.parentRunId"] in of_these]
    assert {run.data.params["training.seed"] for run in attempts} == {"10001", "10002"}
    assert {run.data.params["trainer.parameters"] for run in attempts} == {'{"seconds": 1.0, "updates": 24}'}
    (tuned,) = finished.root.glob("studies/*/tuned.yaml")
    assert "\n# validation: a gain is not shown: " in tuned.read_text() and "updates: 24" in tuned.read_text()
    assert tuned.read_text() == finished.artifact("tuned.yaml").read_text()
    assert "a gain is not shown" in finished.parent.data.tags["ladder.validation"]


# Kills

COEFFICIENTS = {"training.entropy_coef": {"float": [0.0, 0.1]}, "training.learning_rate": {"float": [1e-5, 1e-3]}}


def test_killed_worker_then_all_then_continued(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    """-9 for a worker, which is replaced; -9 for everything; then the same command once more."""
    made = make_study({"study.space": COEFFICIENTS, "study.trials": 4, "study.workers": 2, "seconds": 8.0})
    process = made.start()
    made.wait_until(lambda: len(made.processes("synthetic.py")) == 2, process)
    victim, spared = made.processes("pipeline.tuning.worker")
    victim.kill()
    made.wait_until(lambda: superseded(made.trials()), process)  # its trial has been taken up again
    made.wait_until(lambda: len(made.processes("pipeline.tuning.worker")) == 2, process)
    assert spared.is_running()
    made.wait_until(lambda: len(made.processes("synthetic.py")) == 2, process)
    process.kill()
    said = process.communicate()[0]
    assert "was killed by signal 9; restart 1" in said
    _, alive = psutil.wait_procs(
        [*made.processes("pipeline.tuning.worker"), *made.processes("synthetic.py")], timeout=200
    )
    assert not alive
    assert any(trial.state == TrialState.RUNNING for trial in made.trials())
    assert any(run.info.status == "RUNNING" for run in made.runs("trial"))
    assert made.parent.info.status == "RUNNING"
    for told in (True, False):  # that the study is not, whoever looks says, once
        assert main(["status", "--follow", f"tracking.root={made.root}"]) == 0
        assert (
            "was left RUNNING by process" in capsys.readouterr().out
        ) is told and made.parent.info.status == "KILLED"

    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert_nothing_lost_or_doubled(made, 4)
    assert_both_sides_agree(made)
    assert made.parent.info.status == "FINISHED"
    cut_off = [run for run in made.runs("trial") if run.data.tags["optuna.state"] == "FAIL"]
    assert len(cut_off) == len(superseded(made.trials())) >= 2 and {run.info.status for run in cut_off} == {"KILLED"}
    ids = {run.info.run_id for run in cut_off}
    ended = [run for run in made.runs("attempt") if run.data.tags["mlflow.parentRunId"] in ids]
    assert ended and {run.data.tags["ladder.verdict"] for run in ended} == {"interrupted"}


def test_told_to_stop_and_continued_on_postgresql_by_two_machines(make_study: MakeStudy) -> None:
    """SIGTERM gives the trial back at once. Then two `ladder tune` on one storage share the rest."""
    if binaries() is None:
        pytest.skip("no PostgreSQL on this machine (apt-get install postgresql)")
    with cluster() as url:
        values = {"study.space": COEFFICIENTS, "study.storage": url, "study.trials": 3, "seconds": 5.0}
        made = make_study(values)
        process = made.start()
        made.wait_until(lambda: made.processes("synthetic.py"), process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=100)[0]
        assert process.returncode == 130, said
        (trial,) = made.trials()
        assert trial.state == TrialState.FAIL
        assert made.parent.info.status == made.runs("trial")[0].info.status == "KILLED"
        assert made.runs("attempt")[0].data.tags["ladder.verdict"] == "interrupted"

        both = [made.start(), made.start()]
        said += "".join(each.communicate(timeout=150)[0] for each in both)
        assert [each.returncode for each in both] == [0, 0], said
        assert_nothing_lost_or_doubled(made, 3)
        assert_both_sides_agree(made)
        assert len(superseded(made.trials())) == 1
        done = [t.user_attrs["worker"] for t in made.trials() if t.state == TrialState.COMPLETE]
        assert len(set(done)) == 2
        written = [path for path in made.folder.rglob("*") if path.is_file() and path.name != "study.yaml"]
        written += [made.artifact("study.yaml")]
        assert PASSWORD not in said and not any(PASSWORD.encode() in path.read_bytes() for path in written)


def test_seeds_and_the_ladder_of_a_trial(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    """A trial goes on down the ladder where there is time; what it reaches there is not its objective.

    On a terminal, with its panel.
    """
    cure = {"name": "slower", "set": {"training.learning_rate": 1e-4}}
    made = make_study(
        {
            "study.space": {"training.learning_rate": {"float": [2e-3, 1e-1]}},
            "training.learning_rate": 1e-2,
            "ladder.rungs": ["v3", cure],
            "study.seeds": 2,
            "study.trials": 1,
            "study.objective": {"metric": "gradient_norm", "direction": "minimize"},
        },
    )
    environment = made.environment | {"COLUMNS": "120", "LINES": "40"}
    code, shown = on_a_terminal(made.command(), environment, str(made.folder), seconds=100)
    assert code == 3, shown
    for expected in ("study · synthetic", "0 of 1, ETA", "1 at work", "best –", "no healthy trial has come to its end"):
        assert expected in shown, expected
    (trial,) = made.trials()
    assert trial.state == TrialState.PRUNED and trial.value is None and trial.user_attrs["values"] == []
    assert trial.user_attrs["reason"].startswith("gradient_explosion: ")
    assert trial.user_attrs["reason"].endswith("; healthy with slower, seed 1")
    assert not trial.intermediate_values or max(trial.intermediate_values) < 100
    assert trial.constraints == {HEALTH: 1.0}
    (run,) = made.runs("trial")
    assert run.data.tags["ladder.depth"] == "1" and run.data.tags["optuna.feasible"] == "false"
    attempts = sorted((a.data.tags["ladder.seed"], a.data.tags["ladder.rung"]) for a in made.runs("attempt"))
    assert attempts == [("1", "slower"), ("1", "v3")]
    assert_both_sides_agree(made)
    assert main(made.command("--validate", "4")[3:]) == 2 and "no healthy trial to validate" in capsys.readouterr().err


def test_unpromising_trial_is_pruned_early(make_study: MakeStudy) -> None:
    """The default first, with a score of 52; then one that is known to be worse at every point.

    The trainer knows nothing but MLflow.
    """
    made = make_study(
        {
            "study.space": {"training.entropy_coef": {"float": [0.0299, 0.5]}},
            "training.entropy_coef": 0.03,
            "study.trials": 2,
            "study.pruner_options": {"n_startup_trials": 1, "n_warmup_steps": 20},
            "study.seed": 3,
            "seconds": 6.0,
            "plain_mlflow": True,
        },
    )
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = made.trials()
    assert first.state == TrialState.COMPLETE and second.params["training.entropy_coef"] > 0.06
    assert second.state == TrialState.PRUNED and second.constraints == {HEALTH: 0.0}
    assert 20 <= max(second.intermediate_values) < 100 and "unpromising" in second.user_attrs["reason"]
    runs = {run.data.tags["optuna.trial"]: run for run in made.runs("trial")}
    assert runs["1"].info.status == "KILLED" and runs["1"].data.tags["optuna.feasible"] == "true"
    assert_both_sides_agree(made)


def test_misspelt_metric_ends_the_study_with_its_name(make_study: MakeStudy) -> None:
    made = make_study({"study.objective": {"metric": "scroe"}, "study.trials": 50})
    result = made.run("study.space.training.learning_rate.float=[1e-5,1e-3]")
    assert result.returncode == 4, result.stdout + result.stderr
    assert "scroe was never logged" in result.stderr and "score_window" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [trial.state for trial in made.trials()] == 3 * [TrialState.FAIL]
    assert made.parent.info.status == "FAILED"
    assert_both_sides_agree(made)


def test_shipped_study_works_on_nethack(tmp_path: Path) -> None:
    """experiments/study.yaml, cut down to two tiny trials side by side. The best is of the base's length."""
    tiny = {**SMALL, "study.trials": 2, "environment.random_episodes": 2, "training.steps": 400}
    shorter = yaml.safe_load((REPOSITORY / "experiments" / "study.yaml").read_text())["study"]["trial"]
    tiny |= {f"study.trial.{key}": value for key, value in tiny.items() if key in shorter}
    tiny |= {"study.trial.training.steps": 300}
    words = [f"{key}={value}" for key, value in tiny.items()]
    command = [sys.executable, "-m", "pipeline", "tune", "experiments/study.yaml", f"tracking.root={tmp_path}", *words]
    result = subprocess.run(
        command, cwd=REPOSITORY, env=own_environment() | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == "" and "2 of 2 trials (2 complete" in result.stdout
    (tuned,) = tmp_path.glob("studies/*/tuned.yaml")
    assert load_experiment(tuned).training.steps == 400 and load_experiment(tuned).experiment.name == "score"
