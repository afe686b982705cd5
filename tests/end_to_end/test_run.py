"""`ladder run` from beginning to end: real NetHack, real store, and, but for single attempts, real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fallbacks.ladder import BUILT_IN
from pipeline.config import difference
from pipeline.experiment_file import load_experiment
from tests.conftest import RUNGS
from tests.end_to_end.conftest import evidence

MONITORED = (
    "alpha_entropy", "alpha_entropy_ratio", "load_entropy_ratio", "specialisation", "support_size",
    "expert_usage_max", "expert_usage_excess", "router_logit_norm",
    "gradient_norm", "gradient_norm_max", "gradient_clipped_share",
    "gat_attention_variance", "gat_attention_variance_raw", "gat_smoothing",
    "nonfinite_batches", "rollbacks", "approx_kl", "clip_fraction", "explained_variance", "entropy",
    "steps_per_second", "episodes", "update", "phase", "learning_rate", "score_window",
)  # fmt: skip


@pytest.mark.parametrize("rung", RUNGS)
def test_each_rung_ends_healthy(rung: str, experiment: Any) -> None:
    """V3 as a person starts it; the others without the processes, which are the same."""
    made = experiment(ladder__rungs=[rung])
    if rung == "v3":
        result = made.run_as_a_person()
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        # Nothing outside of the root, and nobody left.
        assert {path.name for path in made.folder.iterdir()} == {"root", "experiment.yaml", "scratch"}
        assert not list(made.scratch.iterdir()) and not made.trainers()
    else:
        assert made.run_here().outcome == "healthy"
    (log,) = (made.root / "experiments").glob("*.log")
    assert "Traceback" not in log.read_text()

    parent, (attempt,) = made.parent, made.attempts
    assert parent.info.status == attempt.info.status == "FINISHED"
    assert parent.data.tags["ladder.outcome"] == "healthy" and parent.data.tags["ladder.settled_rung"] == rung
    tags = attempt.data.tags
    assert parent.data.tags["ladder.quality"] == tags["ladder.quality"] != "" and "random" in tags["ladder.score"]
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (tags["ladder.rung"], tags["ladder.verdict"], tags["ladder.attempt"]) == (rung, "healthy", "0")
    assert tags["ladder.warm_start"] == "scratch" and json.loads(tags["ladder.evidence"]) == []
    config = load_experiment(made.file)
    assert json.loads(tags["ladder.diff"]).keys() == difference(config, BUILT_IN[rung].transform(config)).keys()
    assert set(MONITORED) <= attempt.data.metrics.keys()
    experts = {name for name in attempt.data.metrics if name.startswith("expert_usage/")}
    assert experts == {f"expert_usage/{name}" for name in BUILT_IN[rung].transform(config).policy.experts}
    assert attempt.data.metrics["first_ratio_deviation"] < 1e-5
    assert {"random/score", "random/score_low", "random/score_high"} <= attempt.data.metrics.keys()

    # Once per update, in one batch, step = environment steps.
    history = made.client.get_metric_history(attempt.info.run_id, "update")
    assert [point.value for point in history] == list(range(1, len(history) + 1))
    assert [point.step for point in history] == [64 * number for number in range(1, len(history) + 1)]
    entropies = made.client.get_metric_history(attempt.info.run_id, "alpha_entropy")
    assert [point.step for point in entropies] == [point.step for point in history]

    # Rerun from MLflow alone: the configuration is an artifact and stands in the params.
    local = made.client.download_artifacts(attempt.info.run_id, "experiment.yaml")
    assert attempt.data.params["training.episodes"] == "12"
    assert load_experiment(local).training == BUILT_IN[rung].transform(config).training

    assert not (made.root / "attempts" / attempt.info.run_id / "tmp").exists()
    checkpoints = list((made.root / "attempts" / attempt.info.run_id / "checkpoints").glob("*.pt"))
    assert checkpoints and tags["ladder.policy"] in map(str, checkpoints)
    assert [each.path for each in made.client.list_artifacts(attempt.info.run_id, "policy")]


COLLAPSE = {
    "training__episodes": 60,
    "training__warmup_steps": 100,
    "training__checkpoints_kept": 20,
    "training__alpha_entropy_coef": -1.0,
    "training__load_balance_coef": -1.0,
    "training__learning_rate": 0.01,
    "training__checkpoint_every_episodes": 2,
    "phases__warmup_until": 8,
    "phases__transition_until": 16,
    "preflight__accept": ["learning_rate", "load_balance", "entropy"],
}


def test_a_failing_training_goes_down_the_ladder(experiment: Any) -> None:
    """A negative balance term: the experts collapse, on v3 and on freeze_gat; a rung from YAML removes the cause."""
    cure = {"name": "balanced", "set": {"training.alpha_entropy_coef": 1.0, "training.load_balance_coef": 1.0}}
    made = experiment(**COLLAPSE, ladder__rungs=["v3", "freeze_gat", cure], ladder__remedies=0)
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    v3, frozen, cured = made.attempts
    for failed in (v3, frozen):
        assert failed.info.status == "FAILED" and failed.data.tags["ladder.verdict"] == "expert_collapse"
        (found,) = evidence(failed)
        if found["metric"] == "expert_usage_min":  # an expert has died, before another has taken all
            assert sum(value < 0.001 for value in found["values"]) >= 10 and found["values"][-1] < 0.001
        else:
            assert found["metric"] == "expert_usage_excess" and found["values"][-1] > 0.73
        assert found["onset_step"] < found["detection_step"]
        logged = {
            point.step: point.value for point in made.client.get_metric_history(failed.info.run_id, found["metric"])
        }
        assert logged[found["detection_step"]] == pytest.approx(found["values"][-1])
    assert cured.info.status == "FINISHED" and cured.data.tags["ladder.verdict"] == "healthy"
    assert json.loads(frozen.data.tags["ladder.diff"]) == {"policy.gat_frozen": [False, True]}

    # Each starts from the newest checkpoint whose weights were measured as healthy before the decline began.
    sound = evidence(v3)[0]["sound"]
    folder = made.root / "attempts" / v3.info.run_id / "checkpoints"
    saved = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    good = [each for each in saved if any(first <= each["step"] < end for first, end in sound)]
    assert len(good) < len(saved)  # there was a sick one to be avoided
    start = frozen.data.tags["ladder.warm_start"]
    first = made.client.get_metric_history(frozen.info.run_id, "update")[0].step
    if good:
        healthy = max(good, key=lambda each: each["step"])
        assert json.loads(start) == {"run_id": v3.info.run_id, "episode": healthy["episode"]}
        assert first == healthy["step"] + 64
    else:
        assert start == "scratch" and first == 64

    for attempt in (v3, frozen):
        rule = evidence(attempt)[0]["rule"]
        picture = Path(made.client.download_artifacts(attempt.info.run_id, f"evidence/{rule}.png"))
        assert picture.read_bytes().startswith(b"\x89PNG")

    # The same verdict from the finished runs; and what other rules would have said.
    words = ["diagnose", made.parent.info.run_id, f"tracking.root={made.root}"]
    said = made.ladder(*words)
    assert said.returncode == 0, said.stderr
    verdicts = [line for line in said.stdout.splitlines() if line.startswith("verdict:")]
    step = evidence(v3)[0]["detection_step"]
    assert verdicts[0].startswith(f"verdict: expert_collapse at step {step}, by ")
    assert verdicts[0].endswith("(recorded: expert_collapse)")
    assert verdicts[2] == "verdict: no failing rule fires (recorded: healthy)"
    by_seed = made.ladder(*words, "health.rules=seed", "--out", str(made.folder / "pictures"))
    assert "router_indecision" in by_seed.stdout
    assert (made.folder / "pictures" / f"{v3.info.run_id}-alpha_entropy_high.png").exists()

    parent = made.parent
    assert parent.data.tags["ladder.settled_rung"] == "balanced"
    table = json.loads(Path(made.client.download_artifacts(parent.info.run_id, "attempts.json")).read_text())
    column = table["columns"].index("verdict")
    assert [row[column] for row in table["data"]] == ["expert_collapse", "expert_collapse", "healthy"]
    assert "| 2 | balanced | healthy |" in parent.data.tags["mlflow.note.content"]
    assert parent.data.metrics["attempts"] == 3
    # The random baseline is measured once.
    trainers = [made.root / "attempts" / run.info.run_id / "attempt.json" for run in made.attempts]
    assert [json.loads(path.read_text())["random_score"] is None for path in trainers] == [True, False, False]


def test_seed_rules_cry_wolf_until_the_ladder_is_exhausted(experiment: Any) -> None:
    """The brief, literally: α-entropy > 1.2 is abnormal, and softmax warm-up begins at ln 4."""
    made = experiment(health__rules="seed", ladder__rungs=["v3"])
    end = made.run_here()
    assert end.outcome == "exhausted" and "no rung is left" in end.reason
    assert made.attempts[0].data.tags["ladder.verdict"] == "router_indecision"
    assert made.parent.data.tags["ladder.outcome"] == "exhausted" and made.parent.info.status == "FAILED"
    assert "ladder.settled_rung" not in made.parent.data.tags


LOSS_EXPLODES = {
    "name": "loss_explodes",
    "verdict": "gradient_explosion",
    "conditions": [{"metric": "loss", "above": 1e6}],
    "window": 3,
    "patience": 3,
}
FOREIGN = """
import json, os, sys, time
import mlflow

config = json.load(open(os.environ["LADDER_ATTEMPT"]))["config"]
rate = config["trainer"]["parameters"]["rate"]
with mlflow.start_run():  # the run that MLFLOW_RUN_ID names
    for step in range(60):
        mlflow.log_metric("loss", 1 / (1 + step) if rate < 1 else 10.0**step, step=step)
        time.sleep(0.02)
"""


def test_any_command_is_a_trainer(experiment: Any) -> None:
    """A plain script with a ladder of YAML rungs and a rule of its own metric; no NetHack."""
    made = experiment()
    script = made.folder / "train.py"
    script.write_text(FOREIGN)
    made.file.write_text(
        yaml.safe_dump(
            {
                "experiment": {"name": "foreign"},
                "trainer": {"command": [made.command[0], str(script)], "parameters": {"rate": 5.0}},
                "health": {"extra": [LOSS_EXPLODES], "poll_seconds": 0.2},
                "ladder": {"rungs": ["v3", {"name": "slower", "set": {"trainer.parameters.rate": 0.1}}]},
            }
        )
    )
    result = made.run()
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = made.attempts
    assert first.data.tags["ladder.verdict"] == "gradient_explosion" and first.info.status == "FAILED"
    assert second.data.tags["ladder.rung"] == "slower" and second.info.status == "FINISHED"


def test_trainer_that_logs_nothing_is_not_healthy(experiment: Any) -> None:
    made = experiment(trainer__command=["true"], ladder__rungs=["v3"], budget__retries=0)
    assert made.run().returncode == 4
    assert made.attempts[0].data.tags["ladder.verdict"] == "crash"
    assert "not a single metric" in made.attempts[0].data.tags["ladder.evidence"]


STEPLESS = """
import mlflow, time
with mlflow.start_run():
    for k in range(40):
        mlflow.log_metric("loss", 10.0**k)
        time.sleep(0.25)
"""


def test_metrics_without_steps_are_news_and_are_judged(experiment: Any) -> None:
    made = experiment(health__extra=[LOSS_EXPLODES], health__poll_seconds=0.2, ladder__rungs=["v3"])
    made.train_with("train.py", STEPLESS, budget__hang_after_seconds=25.0, budget__retries=0)
    result = made.run()
    assert result.returncode == 3, result.stdout + result.stderr
    assert made.attempts[0].data.tags["ladder.verdict"] == "gradient_explosion"


def test_tracking_uri_in_the_environment_wins(experiment: Any) -> None:
    """The store is there, for orchestrator and trainer alike; everything else is under the root."""
    made = experiment(root_there=False, ladder__rungs=["v3"])
    made.train_with("train.py", "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('loss', 1.0, step=1)\n")
    elsewhere = made.folder / "elsewhere.db"
    result = made.run(MLFLOW_TRACKING_URI=f"sqlite:///{elsewhere}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert elsewhere.exists() and not (made.root / "mlflow.db").exists()
    made.server = f"sqlite:///{elsewhere}"
    (attempt,) = made.attempts
    assert made.parent.info.status == attempt.info.status == "FINISHED" and attempt.data.metrics["loss"] == 1.0
    assert (made.root / "attempts" / attempt.info.run_id).is_dir()


def test_store_out_of_reach_is_exit_4(experiment: Any) -> None:
    made = experiment(root_there=False)
    made.root.mkdir()
    (made.root / "mlflow.db").write_text("this is no database, but somebody's file")
    result = made.run()
    assert result.returncode == 4
    assert result.stderr.startswith("ladder: tracking store") and len(result.stderr.strip().splitlines()) == 1
    assert (made.root / "mlflow.db").read_text().startswith("this is no database")


def test_trainer_that_cannot_be_started_is_exit_4(experiment: Any) -> None:
    made = experiment(trainer__command=["/no/such/program"])
    result = made.run()
    assert result.returncode == 4 and "error: the trainer cannot start" in result.stdout
    assert "/no/such/program" in result.stdout
    assert made.parent.data.tags["ladder.outcome"] == "error" and made.parent.info.status == "FAILED"
    assert {run.info.status for run in made.attempts} == {"FAILED"}
