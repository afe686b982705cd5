"""What is told of an experiment while it runs: a script's warning, and the page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Experiment

SCRIPT = """
import json, os, time
from pathlib import Path
attempt = Path(os.environ["LADDER_ATTEMPT"])
until = Path(json.loads(attempt.read_text())["config"]["trainer"]["parameters"]["until"])
with (attempt.parent / "metrics.jsonl").open("a") as metrics:
    for step in range(1, 100_000):
        values = {"loss": None if step == 3 else 1 / step, "accuracy": 1 - 1 / step}
        report = {"time": int(1000 * time.time()), "step": step, "metrics": values}
        print(json.dumps(report), file=metrics, flush=True)
        if until.exists():
            break
        time.sleep(0.1)
"""


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_warnings_and_the_page_come_while_a_script_runs(experiment: Any, tmp_path: Path) -> None:
    told, stop = tmp_path / "told", tmp_path / "stop"
    made: Experiment = experiment(
        trainer__parameters={"until": str(stop)}, ladder__rungs=["v3"], health__rules="generic",
        notify__command=["sh", "-c", f"cat >> {told}; echo >> {told}"],
    )  # fmt: skip
    made.train_with("train.py", SCRIPT)
    process = made.start()
    page = made.root / "compare.html"

    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in told.read_text().splitlines() if line] if told.exists() else []

    until(lambda: bool(events()))
    (warned,) = events()
    (run,) = made.attempts
    assert (warned["event"], warned["rule"], warned["metric"]) == ("warning", "not_a_number", "loss")
    assert warned["run_id"] == run.info.run_id and warned["attempt"] == 0
    assert [each["rule"] for each in json.loads(run.data.tags["ladder.warnings"])] == ["not_a_number"]
    assert run.info.status == "RUNNING" and "1 warning" in made.heard("status")
    until(page.exists)
    text = page.read_text()
    assert "Running." in text and 'http-equiv="refresh"' in text and run.info.run_id in text
    assert process.poll() is None

    stop.touch()
    assert process.wait(100) == 0
    (run,) = made.attempts
    rules = [each["rule"] for each in json.loads(run.data.tags["ladder.warnings"])]
    assert rules.count("not_a_number") == 1
    (log,) = (made.root / "experiments").glob("*.log")
    assert log.read_text().count("warning not_a_number") == 1
    assert [each["event"] for each in events() if each.get("rule") in (None, "not_a_number")] == [
        "warning", "verdict", "end",
    ]  # fmt: skip
    assert "Running." not in page.read_text() and 'http-equiv="refresh"' not in page.read_text()
    assert made.parent.info.run_id in page.read_text()
