"""`ladder.speculate`: a place in the queue for the next attempt, from the first sign of a failure to its verdict."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.folder import AttemptFolder
from pipeline.callbacks.callback import Callback
from pipeline.config import ExperimentConfig
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.recovery import take_up
from pipeline.health.history import History
from pipeline.health.monitor import foreseen
from pipeline.health.rule_sets import RULE_SETS
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.launchers import choose
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store
from tests.conftest import small_config
from tests.experiment.test_cluster import ORCHESTRATOR, ROOT
from tests.launchers.fake_engine import FakeEngine
from tests.processes.maker import eventually

QUICK = Patience(engine=0.1, folder=0.02, late=0.3, away=5.0, final=5.0, hold=2.0)
SCRIPT = """
import json, os, sys, time
folder, told, gate, rung = sys.argv[1:]
log = open(os.path.join(folder, "log.jsonl"), "a", buffering=1)
step, large = 0, 0
while not os.path.exists(gate):
    step += 1
    loss = 0.0
    if rung == "bad" and os.path.exists(told):
        loss = float(open(told).read() or 0)
    large += loss > 1
    if loss == -1.0 or loss > 1 and large > 70:
        time.sleep(0.05)
        continue
    log.write(json.dumps({"step": step, "loss": loss}) + "\\n")
    time.sleep(0.05)
"""


def config_of(folder: Path, **changes: Any) -> ExperimentConfig:
    """Two rungs of a script whose loss is what the file `loss` says, until the file `gate` is there.

    At -1, or after 70 reports above 1, it is silent.
    """
    (folder / "train.py").write_text(SCRIPT)
    words = [sys.executable, str(folder / "train.py"), "{folder}", str(folder / "loss"), str(folder / "gate")]
    rule = {
        "name": "large",
        "verdict": "gradient_explosion",
        "conditions": [{"metric": "loss", "above": 1.0}],
        "window": 60,
        "patience": 60,
    }
    values: dict[str, Any] = {
        "trainer__command": [*words, "{parameters.rung}"],
        "trainer__parameters": {"rung": "bad"},
        "trainer__metrics": {"kind": "jsonl", "path": "log.jsonl", "step": "step"},
        "trainer__grace_seconds": 1.0,
        "health__rules": "none",
        "health__extra": [rule],
        "health__poll_seconds": 0.1,
        "budget__retries": 0,
        "ladder__rungs": ["v3", {"name": "good", "set": {"trainer.parameters.rung": "good"}}],
        "ladder__speculate": True,
        "launcher__kind": "slurm",
    }
    return small_config(**{**values, **changes})


class Told(Callback):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str, *, error: bool = False) -> None:
        self.said.append(text)


class AtWork:
    """An orchestrator in a thread of its own, with an engine that takes what it is told to."""

    def __init__(self, config: ExperimentConfig, store: Store, engine: FakeEngine) -> None:
        self.store, self.engine, self.told = store, engine, Told()
        self.launcher = RemoteLauncher(engine, 30.0, 1.0, QUICK)
        self.orchestrator = Orchestrator(config, store, self.launcher, (self.told,))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.closing(self.launcher):
            self.outcome = self.orchestrator.run().outcome

    def at_work(self, jobs: int) -> None:
        """Waits until so many have been submitted and an attempt has logged."""
        eventually(lambda: len(submitted(self.engine)) == jobs and list(self.store.root.glob("attempts/*/log.jsonl")))

    def logged(self, attempts: int) -> None:
        eventually(lambda: len([run for run in self.attempts if "loss" in run.metrics]) == attempts)

    def end(self) -> str:
        self._thread.join(200)
        return self.outcome

    @property
    def attempts(self) -> list[AttemptRun]:
        (parent,) = self.store.parents()
        return self.store.attempts(parent)

    def nothing_is_left(self, attempts: int) -> None:
        assert len(self.attempts) == attempts and not [run for run in self.attempts if run.is_running]
        nothing_is_left(self.store, self.engine, attempts)


def nothing_is_left(store: Store, engine: FakeEngine, attempts: int) -> None:
    eventually(lambda: not [job for job in submitted(engine) if engine._lives(job)])
    folders = list((store.root / "attempts").iterdir())
    assert len(folders) == attempts and not [place for each in folders for place in AttemptFolder(each).places]


def submitted(engine: FakeEngine) -> list[str]:
    return sorted((path.stem for path in engine.folder.glob("*.json")), key=lambda job: engine._pid(job))


def test_the_next_rung_takes_the_place_that_was_held_since_the_rule_stirred(
    tmp_path: Path, empty: Store, engine: FakeEngine
) -> None:
    (tmp_path / "loss").write_text("5.0")
    at_work = AtWork(config_of(tmp_path), empty, engine)
    at_work.at_work(2)
    (place,) = eventually(lambda: list(at_work.store.root.glob("attempts/*/next-*/job.json")))
    held = json.loads(place.read_text())["id"]
    assert len(at_work.attempts) == 1  # no run, before there is a verdict
    eventually(lambda: len(at_work.attempts) == 2 and "at work" in str(at_work.attempts[1].place))
    at_work.logged(2)
    (tmp_path / "gate").touch()
    assert at_work.end() == "healthy"
    assert [run.verdict_name for run in at_work.attempts] == ["gradient_explosion", "healthy"]
    assert held in at_work.attempts[1].place.said and len(submitted(engine)) == 2
    said = "\n".join(at_work.told.said)
    assert "holds a place for the next attempt" in said and "takes the place that was held for" in said
    at_work.nothing_is_left(2)


def test_a_rule_that_stirs_and_comes_to_rest_leaves_nothing(tmp_path: Path, empty: Store, engine: FakeEngine) -> None:
    (tmp_path / "loss").write_text("5.0")
    at_work = AtWork(config_of(tmp_path, health__extra=_slow_rule()), empty, engine)
    at_work.at_work(2)
    (tmp_path / "loss").write_text("0.0")
    eventually(lambda: any("nothing stirs any more" in said for said in at_work.told.said))
    (tmp_path / "gate").touch()
    assert at_work.end() == "healthy"
    at_work.nothing_is_left(1)


def _slow_rule() -> list[dict[str, Any]]:
    """One that stirs, and never has so many reports that it fires."""
    condition = {"metric": "loss", "above": 1.0}
    return [{"name": "large", "verdict": "gradient_explosion", "conditions": [condition], "window": 90, "patience": 80}]


@pytest.mark.parametrize("how", ["healthy", "asked to stop", "cancelled by a person", "crash at the last rung"])
def test_an_attempt_that_ends_otherwise_leaves_nothing(
    tmp_path: Path, empty: Store, engine: FakeEngine, how: str
) -> None:
    (tmp_path / "loss").write_text("5.0")
    more = {"health__extra": _slow_rule()}
    at_work = AtWork(config_of(tmp_path, **more), empty, engine)
    at_work.at_work(2)
    first, _ = submitted(engine)
    if how == "healthy":
        (tmp_path / "gate").touch()
    elif how == "asked to stop":
        at_work.orchestrator.stop("asked to stop")
    elif how == "cancelled by a person":
        engine.cancel(first)
    else:
        (tmp_path / "train.py").write_text("raise SystemExit(1)")
        engine._kill_all(first)
        engine._write(first, "code", "1")
    at_work.end()
    attempts = len(at_work.attempts)
    assert attempts == (2 if how == "crash at the last rung" else 1)
    at_work.nothing_is_left(attempts)


def test_a_silence_of_half_the_time_is_a_sign_of_a_hang(tmp_path: Path, empty: Store, engine: FakeEngine) -> None:
    at_work = AtWork(config_of(tmp_path, budget__hang_after_seconds=6.0, budget__retries=1), empty, engine)
    at_work.at_work(1)
    (tmp_path / "loss").write_text("-1")
    at_work.at_work(2)
    (tmp_path / "loss").write_text("0")
    eventually(lambda: any("nothing stirs any more" in said for said in at_work.told.said))
    (tmp_path / "loss").write_text("-1")
    at_work.at_work(3)
    eventually(lambda: len(at_work.attempts) == 2)
    (tmp_path / "loss").write_text("0")
    at_work.logged(2)
    (tmp_path / "gate").touch()
    assert at_work.end() == "healthy"
    assert at_work.attempts[0].verdict_name == "hang" and len(submitted(engine)) == 3
    at_work.nothing_is_left(2)


def test_where_no_attempt_would_follow_none_is_prepared(tmp_path: Path, empty: Store, engine: FakeEngine) -> None:
    (tmp_path / "loss").write_text("5.0")
    at_work = AtWork(config_of(tmp_path, ladder__rungs=["v3"]), empty, engine)
    assert at_work.end() == "exhausted" and len(submitted(engine)) == 1
    at_work.nothing_is_left(1)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_killed_orchestrator_leaves_nothing(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    (tmp_path / "loss").write_text("5.0")
    config = config_of(tmp_path, health__extra=_slow_rule(), launcher__lease_seconds=60.0 if resumes else 2.0)
    hold = "hold=600.0" if resumes else "hold=2.0"
    source = ORCHESTRATOR.replace("folder=0.02", f"folder=0.02, {hold}")
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(empty.root), str(engine.folder), config.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    eventually(lambda: list(empty.root.glob("attempts/*/next-*/job.json")))
    (tmp_path / "loss").write_text("0.0")
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not resumes:
        nothing_is_left(empty, engine, 1)
        return
    past = take_up(empty, None, lambda config: config)
    assert past.at_work is not None and not list(empty.root.glob("attempts/*/next-*"))
    with contextlib.closing(RemoteLauncher(engine, 60, 1.0, QUICK)) as launcher:
        (tmp_path / "gate").touch()
        assert Orchestrator(past.config, empty, launcher).run(past).outcome == "healthy"
    nothing_is_left(empty, engine, 1)


def test_half_of_the_patience_foresees_the_verdict() -> None:
    rule = ThresholdRule(
        name="large",
        verdict="gradient_explosion",
        conditions=(Condition(metric="loss", above=1.0),),
        window=8,
        patience=6,
    )
    values = [0.0] * 5 + [2.0] * 6

    def seen(count: int) -> str | None:
        verdict = foreseen(History({"loss": list(enumerate(values[:count]))}), [rule])
        return verdict and verdict.name

    assert [seen(count) for count in range(5, 12)] == [None, None, None, *["gradient_explosion"] * 4]
    over = History({"loss": list(enumerate([*values[:9], 0.0]))})
    assert foreseen(over, [rule]) is None and foreseen(History({}), RULE_SETS["v3"]) is None
