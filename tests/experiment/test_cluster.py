"""Experiments whose trainers are jobs of a cluster: an engine of four functions stands for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fallbacks.ladder import End
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig
from pipeline.errors import InfrastructureFailure
from pipeline.experiment import recovery
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.past import Past
from pipeline.experiment.recovery import reconcile, take_up
from pipeline.foreign import checkpoints
from pipeline.launchers import choose, remote
from pipeline.launchers.channel import Channel, Ended, Launch, Sent, Started
from pipeline.launchers.engine import State
from pipeline.launchers.local import LocalLauncher
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store
from tests.conftest import small_config
from tests.launchers.fake_engine import FakeEngine
from tests.processes.maker import eventually

ROOT = Path(__file__).parents[2]
QUICK = Patience(engine=0.1, folder=0.02, late=0.3, away=5.0, final=5.0)
SCRIPT = """
import json, os, signal, sys, time
folder, gate, *start = sys.argv[1:]
step = json.load(open(start[1]))["step"] if start else 0
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
log = open(os.path.join(folder, "log.jsonl"), "a", buffering=1)
while True:
    step += 1
    log.write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
    if step % 10 == 0 or asked:
        path = os.path.join(folder, f"ckpt_{step:06d}.json")
        json.dump({"step": step}, open(path + ".part", "w"))
        os.replace(path + ".part", path)
    if asked:
        sys.exit(130)
    if step >= 400 or os.path.exists(gate):
        break
    if os.path.exists(gate + ".crash"):
        raise RuntimeError("on purpose")
    time.sleep(0.02)
"""


def script_config(folder: Path, **changes: Any) -> ExperimentConfig:
    """A script that logs a step every 20 ms, at least one, until the file `gate` is there."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "{folder}", str(folder / "gate"), "--resume", "{checkpoint}"]
    values: dict[str, Any] = {
        "trainer__command": command,
        "trainer__metrics": {"kind": "jsonl", "path": "log.jsonl", "step": "step"},
        "trainer__checkpoints": {"pattern": "ckpt_*.json", "step": r"ckpt_(\d+)"},
        "trainer__grace_seconds": 2.0,
        "health__rules": "none",
        "health__poll_seconds": 0.2,
        "budget__retries": 0,
        "ladder__rungs": ["v3"],
        "ladder__remedies": 0,
        "launcher__kind": "slurm",
    }
    return small_config(**{**values, **changes})


class AtWork:
    """An orchestrator in a thread of its own."""

    def __init__(self, config: ExperimentConfig, store: Store, engine: FakeEngine) -> None:
        self.store = store
        self.launcher = RemoteLauncher(engine, config.launcher.lease_seconds, 2.0, QUICK)
        self.orchestrator = Orchestrator(config, store, self.launcher)
        self._end: End | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.closing(self.launcher):
            self._end = self.orchestrator.run()

    @property
    def attempts(self) -> list[AttemptRun]:
        (parent,) = self.store.parents()
        return self.store.attempts(parent)

    def job(self, attempt: int = 0) -> str:
        """The job of an attempt that has logged something."""

        def found() -> str | None:
            folders = sorted((self.store.root / "attempts").glob("*"), key=lambda path: path.stat().st_ctime)
            with contextlib.suppress(OSError, IndexError):
                folder = folders[attempt]
                if len((folder / "log.jsonl").read_text().splitlines()) > 25:
                    return str(json.loads((folder / "job.json").read_text())["id"])
            return None

        return str(eventually(found))

    def end(self) -> End:
        self._thread.join(200)
        assert self._end is not None
        return self._end


def steps(store: Store, run: AttemptRun) -> list[int]:
    """The steps of its metrics: each once, none missing."""
    points = store.points(run.run_id, ["loss"])["loss"]
    found = [step for step, _, _ in points]
    assert found == list(range(found[0], found[0] + len(found)))
    return found


def test_a_queue_is_no_hang_and_costs_no_budget(tmp_path: Path, empty: Store, engine: FakeEngine) -> None:
    (engine.folder / "hold").touch()
    config = script_config(tmp_path, budget__hang_after_seconds=0.8, budget__hours=2.5 / 3600)
    at_work = AtWork(config, empty, engine)
    eventually(lambda: at_work.orchestrator._queue.seconds > 3.5)
    run = at_work.attempts[0]
    assert run.is_running and run.place is not None and run.place.waits and "held" in run.place.said
    (tmp_path / "gate").touch()
    (engine.folder / "hold").unlink()
    assert at_work.end().outcome in ("healthy", "exhausted", "error")  # it has had its turn
    assert at_work.attempts[0].metrics["cost/seconds"] < 3


@pytest.mark.parametrize("how", ["preempted", "node lost"])
def test_what_was_taken_away_goes_on_and_spends_no_retry(
    tmp_path: Path, empty: Store, engine: FakeEngine, how: str
) -> None:
    at_work = AtWork(script_config(tmp_path), empty, engine)
    job = at_work.job()
    engine.take(job) if how == "preempted" else engine.lose(job)
    at_work.job(1)
    (tmp_path / "gate").touch()
    assert at_work.end().outcome == "healthy"
    first, second = at_work.attempts
    assert (first.verdict_name, second.verdict_name) == ("interrupted", "healthy")
    assert first.status == "KILLED" and second.warm_start is not None
    before, after = steps(empty, first), steps(empty, second)
    assert before[0] == 1 and after[0] - 1 == second.warm_start.episode
    assert before[-1] - after[0] < (1 if how == "preempted" else 10)  # only what came after the last checkpoint
    assert second.place is not None and f"job {at_work.job(1)}" in second.place.said


def test_a_person_who_cancels_the_job_ends_the_experiment(tmp_path: Path, empty: Store, engine: FakeEngine) -> None:
    at_work = AtWork(script_config(tmp_path), empty, engine)
    engine.cancel(at_work.job())
    end = at_work.end()
    assert end.outcome == "interrupted" and "was cancelled" in end.reason
    assert len(at_work.attempts) == 1 and at_work.attempts[0].status == "KILLED"


def test_one_that_is_taken_away_again_and_again_without_progress_crashes(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = engine.submit

    def doomed(*words: Any) -> str:
        job = submit(*words)
        engine.lose(job)
        return job

    monkeypatch.setattr(engine, "submit", doomed)
    end = AtWork(script_config(tmp_path, launcher__lost=2), empty, engine)
    assert end.end().outcome == "exhausted"
    assert [run.verdict_name for run in end.attempts] == ["interrupted", "interrupted", "crash"]


ORCHESTRATOR = """
import sys
from pathlib import Path
from pipeline.config import ExperimentConfig
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.tracking.access import default_uri
from pipeline.tracking.store import Store
from tests.launchers.fake_engine import FakeEngine
root, engine, text = sys.argv[1:]
config = ExperimentConfig.model_validate_json(text)
quick = Patience(engine=0.1, folder=0.02)
launcher = RemoteLauncher(FakeEngine(Path(engine)), config.launcher.lease_seconds, 2.0, quick)
Orchestrator(config, Store(default_uri(Path(root)), Path(root)), launcher).run()
"""


def killed(config: ExperimentConfig, store: Store, engine: FakeEngine) -> str:
    """The job of an experiment whose orchestrator has been killed while it was at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", ORCHESTRATOR, str(store.root), str(engine.folder), config.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def logged() -> str | None:
        assert process.poll() is None
        for folder in (store.root / "attempts").glob("*"):
            with contextlib.suppress(OSError):
                if len((folder / "log.jsonl").read_text().splitlines()) > 25:
                    return str(json.loads((folder / "job.json").read_text())["id"])
        return None

    job = str(eventually(logged))
    process.send_signal(signal.SIGKILL)
    process.wait()
    return job


def resumed(past: Past, store: Store, engine: FakeEngine, gate: Path) -> list[AttemptRun]:
    """The attempts of an experiment that has gone on to its healthy end. No trainer has been started in vain."""
    with contextlib.closing(RemoteLauncher(engine, 60, 2.0, QUICK)) as launcher:
        thread = threading.Timer(0.7, gate.touch)
        thread.start()
        end = Orchestrator(past.config, store, launcher).run(past)
        thread.join()
    assert end.outcome == "healthy", (end, [each.verdict for each in past.attempts])
    (parent,) = store.parents()
    runs = store.attempts(parent)
    assert parent.status == "FINISHED" and len(list(engine.folder.glob("*.json"))) == len(runs)
    return runs


def test_resume_attaches_to_a_job_that_has_outlived_its_orchestrator(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    job = killed(script_config(tmp_path), empty, engine)
    told: list[str] = []
    reconcile(empty, told.append)
    (parent,) = empty.parents()
    assert parent.is_running and engine.state(job).phase == "running" and not told
    past = take_up(empty, None, lambda config: config)
    assert past.at_work is not None and not past.attempts
    (run,) = resumed(past, empty, engine, tmp_path / "gate")
    assert run.verdict_name == "healthy" and steps(empty, run)[0] == 1


def test_a_job_of_another_engine_is_none_that_can_be_attached_to(tmp_path: Path, engine: FakeEngine) -> None:
    """Whatever it has said: its id means nothing to this engine."""
    folder = AttemptFolder(tmp_path / "attempt")
    folder.path.mkdir()
    channel = Channel(folder.path)
    channel.say(Launch("n", ["true"], {}, {}, str(tmp_path), 60, 2.0))
    channel.say(Sent("n", engine="slurm", id="7"))
    with contextlib.closing(RemoteLauncher(engine, 60, 2.0, QUICK)) as launcher:
        assert launcher.remains(folder.file) == "nothing"
        channel.say(Ended("n", code=0))
        assert launcher.remains(folder.file) == "nothing" and launcher.how_it_ended(folder.file) is None


ENDED = {  # how a job has ended without an orchestrator -> the verdicts, and how many steps may be done twice
    "healthy": (["healthy"], 0),
    "lease": (["interrupted", "healthy"], 0),
    "preempted": (["interrupted", "healthy"], 0),
    "crash": (["crash", "healthy"], 10),
    "node lost": (["interrupted", "healthy"], 20),  # nothing tells whether the newest checkpoint is whole
}


@pytest.mark.parametrize("looks", [0, 2], ids=["at once", "after other commands"])
@pytest.mark.parametrize("how", ENDED)
def test_what_a_job_has_done_without_an_orchestrator_is_not_done_again(
    tmp_path: Path, empty: Store, engine: FakeEngine, how: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    monkeypatch.setattr(remote, "Patience", lambda: QUICK)
    monkeypatch.setattr(checkpoints, "_STILL_NANOSECONDS", 0)
    config = script_config(tmp_path, launcher__lease_seconds=1.5 if how == "lease" else 60.0, budget__retries=1)
    job = killed(config, empty, engine)
    folder = AttemptFolder(next((empty.root / "attempts").glob("*")))
    done = len((folder.path / "log.jsonl").read_text().splitlines())
    eventually(lambda: len((folder.path / "log.jsonl").read_text().splitlines()) > done + 25)
    match how:
        case "healthy":
            (tmp_path / "gate").touch()
        case "preempted":
            engine.take(job)
        case "crash":
            (tmp_path / "gate.crash").touch()
        case "node lost":
            engine.lose(job)
    eventually(lambda: engine.state(job).phase == "ended")
    began, signs = Channel(folder.path).read(Started), [each.stat().st_mtime for each in folder.signs if each.exists()]
    worked = max(signs) - began.at if began else math.nan
    verdicts, twice = ENDED[how]
    told: list[str] = []
    for _ in range(looks):
        reconcile(empty, told.append)
        (parent,) = empty.parents()
        assert parent.status == "KILLED" and [run.verdict_name for run in empty.attempts(parent)] == verdicts[:1]
        assert len(told) == 1 and f"({verdicts[0]})" in told[0]
        assert empty.attempts(parent)[0].metrics["cost/seconds"] >= worked
        assert not (folder.path / "launch.json").exists()
    past = take_up(empty, None, lambda config: config.with_values({"launcher.lease_seconds": 60}))
    assert past.at_work is None
    (tmp_path / "gate.crash").unlink(missing_ok=True)
    runs = resumed(past, empty, engine, tmp_path / "gate")
    assert [run.verdict_name for run in runs] == verdicts
    found = [steps(empty, run) for run in runs]
    assert found[0][0] == 1 and found[0][-1] > done + 25
    assert all(0 <= before[-1] - after[0] + 1 <= twice for before, after in itertools.pairwise(found))


def test_while_the_engine_is_away_no_command_ends_what_only_it_can_explain(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    job = killed(script_config(tmp_path), empty, engine)
    engine.take(job)
    eventually(lambda: engine.state(job).phase == "ended")
    (engine.folder / "away").touch()
    told: list[str] = []
    reconcile(empty, told.append)
    (parent,) = empty.parents()
    assert parent.is_running and not told
    (engine.folder / "away").unlink()
    reconcile(empty, told.append)
    assert "(interrupted)" in told[0]


@pytest.mark.parametrize("command", ["status", "resume"])
@pytest.mark.parametrize("answers", [1, 2])
def test_an_engine_that_goes_away_after_it_said_that_a_job_has_ended_is_not_waited_for_without_end(
    tmp_path: Path, empty: Store, engine: FakeEngine, command: str, answers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is claimed of how it has ended, and the next command tells it."""
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    monkeypatch.setattr(remote, "Patience", lambda: Patience(engine=0.1, folder=0.02, late=0.1, final=0.3))
    monkeypatch.setattr(checkpoints, "_STILL_NANOSECONDS", 0)
    job = killed(script_config(tmp_path), empty, engine)
    engine.lose(job)
    eventually(lambda: engine.state(job).phase == "ended")
    state, left, told = engine.state, itertools.count(answers - 1, -1), list[str]()

    def answer(job: str) -> State:
        said = state(job)
        if next(left) == 0:
            (engine.folder / "away").touch()
        return said

    monkeypatch.setattr(engine, "state", answer)
    if command == "status":
        reconcile(empty, told.append)
    else:
        with pytest.raises(InfrastructureFailure) as failure:
            take_up(empty, None, lambda config: config)
        told.append(f"cannot be ended now: {failure.value}")
    assert "cannot be ended now" in told[0]
    assert (
        "fake does not answer now (the fake engine is away), so how" if answers == 2 else "does not say now"
    ) in told[0]
    (parent,) = empty.parents()
    (attempt,) = empty.attempts(parent)
    assert parent.is_running and attempt.is_running and attempt.verdict is None
    (engine.folder / "away").unlink()
    if command == "status":
        reconcile(empty, told.append)
        assert "(interrupted)" in told[1]
    past = take_up(empty, None, lambda config: config)
    assert [run.verdict_name for run in resumed(past, empty, engine, tmp_path / "gate")] == ["interrupted", "healthy"]


@pytest.mark.parametrize("away", ["before it is judged", "before it is told"])
def test_a_store_that_goes_away_meanwhile_loses_no_verdict(
    tmp_path: Path, empty: Store, engine: FakeEngine, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine)
    job = killed(script_config(tmp_path), empty, engine)
    (tmp_path / "gate").touch()
    eventually(lambda: engine.state(job).phase == "ended")

    def fail(*_: Any, **__: Any) -> None:
        raise InfrastructureFailure("the store is away")

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "verdict_of" if away == "before it is judged" else "conclude", fail)
        reconcile(empty, told.append)
    assert "cannot be ended now" in told[0]
    reconcile(empty, told.append)
    (parent,) = empty.parents()
    assert [run.verdict_name for run in empty.attempts(parent)] == ["healthy"]


def test_who_resumes_with_another_launcher_takes_what_the_job_has_done(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine if config.launcher.kind == "slurm" else None)
    job = killed(script_config(tmp_path), empty, engine)
    (tmp_path / "gate").touch()
    eventually(lambda: engine.state(job).phase == "ended")
    past = take_up(empty, None, lambda config: config.with_values({"launcher.kind": "local"}))
    with contextlib.closing(LocalLauncher()) as launcher:
        assert Orchestrator(past.config, empty, launcher).run(past).outcome == "healthy"
    (parent,) = empty.parents()
    assert len(empty.attempts(parent)) == 1


def test_who_resumes_with_another_launcher_ends_the_job_first(
    tmp_path: Path, empty: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "make_engine", lambda config: engine if config.launcher.kind == "slurm" else None)
    job = killed(script_config(tmp_path), empty, engine)
    past = take_up(empty, None, lambda config: config.with_values({"launcher.kind": "local"}))
    (tmp_path / "gate").touch()
    with contextlib.closing(LocalLauncher()) as launcher:
        assert Orchestrator(past.config, empty, launcher).run(past).outcome in ("healthy", "error")
    assert engine.state(job).phase == "ended"
    (parent,) = empty.parents()
    assert empty.attempts(parent)[0].verdict_name == "interrupted"
