"""One question to an engine for all jobs of a process, with an engine that counts and starts nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.attempt.folder import AttemptFolder
from pipeline.launchers.channel import Channel, Started
from pipeline.launchers.engine import AnswersForSeveral, EngineAway, State
from pipeline.launchers.patience import Patience
from pipeline.launchers.remote import RemoteLauncher
from pipeline.launchers.remote_job import RemoteJob
from pipeline.launchers.together import together_in
from tests.launchers.conformance import ended
from tests.processes.maker import eventually

QUICK = Patience(engine=0.5, folder=0.01, late=0.0, away=5.0, final=1.0)
MANY = 8


class OneByOne:
    """An engine that is asked about each job, and counts. Its jobs wait until the test says otherwise."""

    name = "counting"

    def __init__(self) -> None:
        self.jobs: dict[str, State] = {}
        self.questions: list[tuple[str, ...]] = []
        self.away = False
        self.held = threading.Event()
        self.held.set()

    def submit(self, name: str, command: Sequence[str], folder: Path, output: Path) -> str:
        job = f"{name}@{id(self)}"
        self.jobs[job] = State("queued", "held")
        return job

    def state(self, job: str) -> State:
        return self._asked(job).get(job, State("ended"))

    def cancel(self, job: str) -> None:
        self.jobs[job] = State("ended", end="cancelled")

    def find(self, name: str) -> str | None:
        return None

    def test(self) -> str:
        return ""

    def _asked(self, *jobs: str) -> Mapping[str, State]:
        self.questions.append(jobs)
        assert self.held.wait(10)
        if self.away:
            raise EngineAway("the engine is away")
        return {job: self.jobs[job] for job in jobs if job in self.jobs}


class AtOnce(OneByOne):
    """An engine that answers for several. `fails`: what it does instead. `silent`: of whom it says nothing then."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.fails: Exception | None = None
        self.silent: set[str] = set()

    def states(self, jobs: Sequence[str]) -> Mapping[str, State]:
        found = self._asked(*jobs)
        if self.fails is not None:
            raise self.fails
        return {job: state for job, state in found.items() if job not in self.silent}


@pytest.fixture
def engine(tmp_path: Path) -> AtOnce:
    return AtOnce(str(tmp_path))


Start = Callable[..., list[RemoteJob]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts experiments of this process: each has one job, and a launcher of its own."""
    with contextlib.ExitStack() as stack:

        def start(engine: OneByOne, many: int = MANY, patience: Patience = QUICK) -> list[RemoteJob]:
            jobs = []
            for number in range(many):
                launcher = RemoteLauncher(engine, 30, 1, patience)
                stack.callback(launcher.let_go)
                folder = tmp_path / f"{engine.name}-{id(engine)}-{number}"
                jobs.append(launcher.launch(["true"], {}, folder))
            eventually(lambda: all(job.state is not None for job in jobs))
            return jobs

        yield start


def questions(engine: OneByOne, seconds: float) -> list[tuple[str, ...]]:
    """Those in this time."""
    before = len(engine.questions)
    time.sleep(seconds)
    return engine.questions[before:]


def hold(engine: OneByOne) -> int:
    """Has the engine keep its next answer back. Returns when it is asked, and how many questions were before."""
    engine.held.clear()
    before = len(engine.questions)
    eventually(lambda: len(engine.questions) > before)
    return before


def test_one_question_in_an_interval_is_for_all(engine: AtOnce, start: Start) -> None:
    jobs = start(engine)
    time.sleep(QUICK.engine)
    asked = questions(engine, 4 * QUICK.engine)
    assert 2 <= len(asked) <= 5 and all(set(each) == {job.id for job in jobs} for each in asked)


def test_an_engine_that_cannot_do_that_is_asked_about_each(start: Start) -> None:
    engine = OneByOne()
    start(engine)
    assert len(questions(engine, 2 * QUICK.engine)) >= MANY and all(len(each) == 1 for each in engine.questions)
    assert not isinstance(engine, AnswersForSeveral)


def test_each_hears_of_itself(engine: AtOnce, start: Start) -> None:
    jobs = start(engine)
    states = {job.id: State("queued", f"reason {number}") for number, job in enumerate(jobs)}
    engine.jobs.update(states)  # type: ignore[arg-type]
    eventually(lambda: all(job.state == states[job.id] for job in jobs))


def test_an_engine_that_is_away_is_waited_for_once_by_all(engine: AtOnce, start: Start) -> None:
    jobs = start(engine)
    before = hold(engine)
    time.sleep(2 * QUICK.engine)  # so long, it answers nothing; by now all are due, and wait
    assert len(engine.questions) == before + 1
    engine.away = True
    engine.held.set()
    eventually(lambda: all(job.away_since is not None for job in jobs))
    assert len(engine.questions) < before + MANY  # none waits for an answer of its own
    assert all(job.state == State("queued", "held") and job.wait(0) is None for job in jobs)
    engine.away = False
    eventually(lambda: all(job.away_since is None for job in jobs))


def test_one_that_the_answer_leaves_out_is_looked_up_on_its_own(engine: AtOnce, start: Start) -> None:
    first, second, *others = start(engine)
    assert first.id is not None and second.id is not None
    del engine.jobs[first.id]
    engine.silent.add(second.id)
    assert "not known any more" in (ended(first).taken or "")
    engine.jobs[second.id] = State("queued", "only when it is asked about alone")
    eventually(lambda: second.state == engine.jobs[second.id or ""])
    assert (first.id,) in engine.questions and (second.id,) in engine.questions
    assert all(job.wait(0) is None and (job.id,) not in engine.questions[-MANY:] for job in others)


@pytest.mark.parametrize("fails", [ValueError("no such answer"), KeyError("x")])
def test_an_answer_that_is_not_understood_leaves_each_to_itself(engine: AtOnce, start: Start, fails: Exception) -> None:
    jobs = start(engine)
    engine.fails = fails
    engine.jobs.update({str(job.id): State("running") for job in jobs})
    eventually(lambda: all(job.state == State("running") for job in jobs))
    engine.fails = None
    asked = eventually(lambda: [each for each in questions(engine, QUICK.engine) if len(each) == MANY])
    assert asked


@pytest.mark.parametrize("how", ["ends", "is killed", "is let go"])
def test_the_end_of_one_disturbs_no_other(engine: AtOnce, start: Start, how: str) -> None:
    first, *others = start(engine)
    if how == "ends":
        engine.jobs[str(first.id)] = State("ended", end="failed", code=3)
        assert ended(first).code == 3
    elif how == "is killed":
        first.kill()
    else:
        first._launcher.let_go()
    asked = [each for each in questions(engine, 3 * QUICK.engine) if len(each) > 1]
    assert asked and set(asked[-1]) == {job.id for job in others}
    assert all(job.wait(0) is None for job in others)


def test_nobody_is_left_when_all_are_closed(engine: AtOnce, start: Start) -> None:
    for job in start(engine):
        job._launcher.close()
    assert not together_in(engine)._jobs and not questions(engine, 2 * QUICK.engine)


def test_what_fails_for_one_disturbs_no_other(engine: AtOnce, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, *others = start(engine)
    hear = RemoteJob._hear

    def fails(job: RemoteJob, state: State, **more: Any) -> None:
        if job is broken:
            raise OSError(5, "Input/output error")
        hear(job, state, **more)

    monkeypatch.setattr(RemoteJob, "_hear", fails)
    engine.jobs.update({job: State("running") for job in engine.jobs})
    eventually(lambda: all(job.state == State("running") for job in others))
    assert broken.state == State("queued", "held")
    monkeypatch.undo()
    eventually(lambda: broken.state == State("running"))


def test_jobs_of_two_engines_do_not_mix(engine: AtOnce, start: Start, tmp_path: Path) -> None:
    other, same = AtOnce(str(tmp_path / "elsewhere")), AtOnce(engine.address)
    here, there = start(engine, 3), start(other, 2)
    other.away = True
    time.sleep(2 * QUICK.engine)
    assert all(job.away_since is None for job in here) and all(job.away_since for job in there)
    assert {job for each in engine.questions for job in each} == {job.id for job in here}
    assert {job for each in other.questions for job in each} == {job.id for job in there}
    assert together_in(same) is together_in(engine) is not together_in(other)


def test_whether_it_had_begun_is_noted_before_the_question(engine: AtOnce, start: Start) -> None:
    """A job that begins while the engine is asked is not taken for one that is queued again."""
    jobs = start(engine)
    for _ in range(3):
        hold(engine)
        for job in jobs:
            Channel(job._channel.folder).say(Started(nonce=job.nonce, host="n1", boot="", at=0.0))
        engine.jobs = {job: State("running") for job in engine.jobs}
        engine.held.set()
    assert all(job._queued_again == 0 and job.wait(0) is None for job in jobs)


def test_a_question_from_before_is_no_answer_to_one_who_asks_later(engine: AtOnce, start: Start) -> None:
    """Who attaches while a question is under way is asked for by the next one."""
    first, second = start(engine, 2)
    hold(engine)
    second._launcher.let_go()
    found: list[RemoteJob | None] = []
    with contextlib.closing(RemoteLauncher(engine, 30, 1, QUICK)) as launcher:
        attempt = AttemptFolder(second._channel.folder).file
        thread = threading.Thread(target=lambda: found.append(launcher.attach(attempt)))
        thread.start()
        time.sleep(0.1)
        engine.jobs[str(second.id)] = State("running", "now")
        engine.held.set()
        thread.join(200)
        (attached,) = found
        assert attached is not None and attached.state == State("running", "now")
    assert first.wait(0) is None
