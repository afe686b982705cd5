"""`ladder.until: end`, with a script: a verdict stops no attempt, and a killed orchestrator goes on."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from pipeline.compare.from_store import load

SCRIPT = """
import json, os, pathlib, sys, time

parameters = json.loads(pathlib.Path(os.environ["LADDER_ATTEMPT"]).read_text())["config"]["trainer"]["parameters"]
with open("progress.csv", "w") as table:
    print("step,loss,score", file=table)
    for step in range(1, 41):
        loss = 1000.0 if parameters["loud"] and step > 5 else 1.0
        print(f"{step},{loss},{parameters['level'] + step % 3}", file=table, flush=True)
        time.sleep(0.1)
        if parameters["dies"] and step == 10:
            sys.exit("RuntimeError: it dies each time")
"""
LOUD = {
    "name": "too_loud",
    "verdict": "gradient_explosion",
    "conditions": [{"metric": "loss", "above": 100.0}],
    "window": 3,
    "patience": 3,
}


def test_every_rung_is_trained_to_its_end_through_the_death_of_the_orchestrator(experiment: Any) -> None:
    made = experiment()
    made.train_with(
        "train.py",
        SCRIPT,
        trainer__parameters={"loud": False, "level": 10, "dies": False},
        trainer__metrics="csv",
        ladder__until="end",
        ladder__rungs=[
            "v3",
            {"name": "loud", "set": {"trainer.parameters.loud": True, "trainer.parameters.level": 20}},
            {"name": "dies", "set": {"trainer.parameters.dies": True, "trainer.parameters.level": 90}},
            {"name": "calm", "set": {"trainer.parameters.level": 15}},
        ],
        health__extra=[LOUD],
        health__poll_seconds=0.2,
        budget__retries=0,
    )
    process, until = made.start(), time.monotonic() + 200
    while not (made.has_store and len(made.attempts) == 2 and made.attempts[1].data.metrics.get("loss", 0) > 100):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = made.resume()
    assert result.returncode == 0, result.stdout + result.stderr

    verdicts = [run.data.tags["ladder.verdict"] for run in made.attempts]
    assert verdicts == ["healthy", "interrupted", "gradient_explosion", "crash", "healthy"]
    assert [run.data.tags["ladder.rung"] for run in made.attempts] == ["v3", "loud", "loud", "dies", "calm"]
    loud = made.attempts[2]
    assert len(made.client.get_metric_history(loud.info.run_id, "loss")) == 40
    found, ended = json.loads(loud.data.tags["ladder.evidence"])
    assert found["rule"] == "too_loud" and found["detection_step"] < 15 and ended["rule"] == "end"
    assert made.parent.info.status == "FINISHED" and made.parent.data.tags["ladder.outcome"] == "compared"
    assert "ladder.settled_rung" not in made.parent.data.tags
    costs = [run.data.metrics["cost/minutes"] for run in made.attempts]  # the killed one and the crash have theirs too
    assert made.parent.data.metrics["cost/minutes"] == pytest.approx(sum(costs)) and min(costs) > 0
    assert loud.data.metrics["cost/steps"] == 40
    assert made.parent.data.metrics["cost/steps"] == sum(run.data.metrics["cost/steps"] for run in made.attempts)
    note = made.parent.data.tags["mlflow.note.content"]
    assert "3 of 4 rungs trained to the end, not dies" in note and "to the end |" in note

    said = result.stdout
    assert "each of the 4 trained to its end" in said and "rung 3 of 4" in said
    assert "noted, the training goes on to its end" in said
    assert "best score of those trained to the end: loud, 2" in said
    assert "nothing to resume" in made.heard("resume") and "has ended, compared" in made.refusal(
        made.parent.info.run_id
    )

    rows = json.loads(made.heard("compare", "--format", "json"))
    assert [row["to_the_end"] for row in rows] == [True, False, True, False, True]
    rungs = load(root=made.root).rungs()
    assert rungs.to_the_end.to_dict() == {"v3": 1, "loud": 1, "dies": 0, "calm": 1}
    assert 20 <= rungs.score["loud"] <= 22
    artifacts = {each.path for each in made.client.list_artifacts(made.parent.info.run_id)}
    assert {"attempts.json", "attempts.csv", "compare.html"} <= artifacts
