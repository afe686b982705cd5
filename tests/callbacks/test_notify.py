"""The notification hook, with real commands: told everything, and harmless whatever they do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from fallbacks.ladder import BUILT_IN, Plan
from pipeline.callbacks import notify
from pipeline.callbacks.callback import ExperimentEnded, ExperimentStarted
from pipeline.callbacks.notify import Notifier
from pipeline.config import ExperimentConfig
from pipeline.health.verdict import Evidence


def told(command: list[str] | None, facts: dict[str, object]) -> tuple[list[str], float]:
    """What was complained of, and how long it took."""
    complaints: list[str] = []
    began = time.monotonic()
    Notifier(command, complaints.append).notify("verdict", facts)
    return complaints, time.monotonic() - began


def test_facts_come_as_json(tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    facts = {"rung": "v3", "score": 12.5, "evidence": "α < 0.3 “here”", "none": None}
    assert told(["sh", "-c", f"cat > {said}"], facts)[0] == []
    assert json.loads(said.read_text()) == {"event": "verdict", **facts}


def test_no_shell(tmp_path: Path) -> None:
    told(["touch", f"{tmp_path}/a; touch {tmp_path}/b"], {})
    assert not (tmp_path / "b").exists()


def test_nothing_is_run_by_default() -> None:
    assert ExperimentConfig().notify.command is None
    assert told(None, {})[0] == []


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["/no/such/program"], "could not be started"),
        (["sh", "-c", "echo the server is out >&2; exit 3"], "exit code 3: the server is out"),
        (["sh", "-c", "kill -SEGV $$"], "exit code -11"),
        (["a\0b"], "could not be started"),
    ],
    ids=["missing", "failing", "crashing", "nonsense"],
)
def test_failures_are_said_and_nothing_more(command: list[str], complaint: str) -> None:
    (said,), _ = told(command, {})
    assert complaint in said


def test_input_that_nobody_reads_and_much_output() -> None:
    assert told(["sh", "-c", "yes | head -c 3000000"], {"big": "x" * 3_000_000})[0] == []


def test_hanging_command_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notify, "PATIENCE_SECONDS", 0.7)
    child = tmp_path / "child"
    (said,), seconds = told(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], {})
    assert "took longer than 0.7 s" in said and seconds < 30
    number = int(child.read_text())
    for _ in range(50):
        if not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError("the child lives")


def test_warnings_are_told_once_a_rule_and_before_the_verdict(tmp_path: Path) -> None:
    said, complaints = tmp_path / "said", list[str]()
    command = ["sh", "-c", f"sleep 0.2; cat >> {said}; echo >> {said}"]
    notifier = Notifier(command, complaints.append)
    notifier.experiment_started(ExperimentStarted(ExperimentConfig(), "p", "", Path(), False, lambda _: None))
    notifier.attempt_started(Plan(BUILT_IN["v3"], ExperimentConfig(), "", None), 2, "run")
    began = time.monotonic()
    for metric in ("a", "b"):
        notifier.warning(Evidence(rule="high", metric=metric, values=(11.0,), threshold="> 10"))
    assert time.monotonic() - began < 0.15  # nothing waits for the command
    notifier.experiment_ended(ExperimentEnded("healthy", "", "v3", (), {}, None, False, None))
    notifier.close()
    warned, end = map(json.loads, said.read_text().splitlines())
    assert warned["event"] == "warning" and end["event"] == "end" and warned["parent"] == end["parent"] == "p"
    assert (warned["attempt"], warned["rung"], warned["run_id"]) == (2, "v3", "run")
    assert warned["rule"] == "high" and warned["metric"] == "a" and "a 11.0 (> 10)" in warned["warning"]
    assert complaints == []


def test_a_command_that_hangs_at_warnings_holds_up_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PATIENCE_SECONDS", 0.3)
    notifier = Notifier(["sleep", "100"], lambda _: None)
    for number in range(9):
        notifier.warning(Evidence(rule=f"rule{number}"))
    began = time.monotonic()
    notifier._await_warnings()
    notifier.close()
    assert time.monotonic() - began < 1
