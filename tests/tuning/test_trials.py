"""Every trial is worked on exactly once, by any number of workers, some of them killed."""

from __future__ import annotations

import multiprocessing
import signal
import time
import uuid
from collections import Counter

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from pipeline.errors import InfrastructureFailure
from pipeline.tuning.results import TrialCount
from pipeline.tuning.storage import Heartbeat
from pipeline.tuning.trials import HEALTH, MAX_RETRIES, Outcome, Trials, superseded
from pipeline.tuning.worker import GIVE_UP_AFTER, work
from tests.tuning.processes import evaluate, kill_yourself_while_evaluating, open_trials, work_in_a_process


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def by_state(trials: Trials) -> Counter[str]:
    return Counter(trial.state.name for trial in trials.all())


def test_several_workers_do_neither_more_nor_the_same(url: str, name: str) -> None:
    """Three processes work on the same study: 20 trials in all, each by one process, no two alike."""
    trials = open_trials(url, name, trials=20)
    trials.study.enqueue_trial({"training.learning_rate": 1e-4})
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(3)
    processes = [spawn.Process(target=work_in_a_process, args=(url, name, number, together)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
        assert process.exitcode == 0
    done = trials.all()
    assert len(done) == 20 and all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in done)
    assert len({tuple(trial.params.values()) for trial in done}) == 20
    assert len({trial.user_attrs["worker"] for trial in done}) == 3


def test_unhealthy_trial_is_infeasible_and_never_the_best(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=2)
    good, bad = 1e-4, 1e-2
    for rate in (good, bad):
        trials.study.enqueue_trial({"training.learning_rate": rate, "training.entropy_coef": 0.03})
    work(trials, evaluate)
    first, second = trials.all()
    assert first.state == TrialState.COMPLETE and first.constraints == {HEALTH: 0.0}
    assert second.state == TrialState.PRUNED and second.constraints == {HEALTH: 1.0}
    assert trials.study.best_trial.number == 0
    count = TrialCount.of(trials.all())
    assert (count.complete, count.unhealthy, count.pruned, count.done) == (1, 1, 0, 2)


def test_trial_that_needed_the_ladder_is_infeasible_by_its_depth(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=1)
    trial = trials.ask()
    assert trial is not None
    trials.tell(trial, Outcome("complete", values=(5.0, 7.0), errors=(None, None), depth=2))
    (told,) = trials.all()
    assert told.state == TrialState.COMPLETE and told.value == 6.0 and told.constraints == {HEALTH: 2.0}
    with pytest.raises(ValueError, match="feasible"):
        _ = trials.study.best_trial


def test_killed_worker_is_recovered_by_the_heartbeat(url: str, name: str) -> None:
    """The same coefficients are tried again once; the attributes of the killed worker's trial are not taken over."""
    killed = multiprocessing.get_context("spawn").Process(target=kill_yourself_while_evaluating, args=(url, name))
    killed.start()
    killed.join(200)
    assert killed.exitcode == -signal.SIGKILL
    trials = open_trials(url, name, trials=1)
    assert by_state(trials) == {"RUNNING": 1} and trials.ask() is None  # it might still be alive
    began = time.monotonic()
    assert work(trials, lambda trial: Outcome("complete", values=(1.0,)))
    assert time.monotonic() - began < 60  # a hang, not a slow machine
    lost, again = trials.all()
    assert (lost.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == lost.params
    assert RetryHeartbeatStaleTrialCallback.retry_history(again) == [lost.number]
    assert again.user_attrs["worker"] == "test" and "mlflow.run_id" not in again.user_attrs
    assert again.constraints == {HEALTH: 0.0}
    assert superseded(trials.all()) == {0} and trials.counted(trials.all()) == 1 and not trials.unfinished()


def test_worker_killed_while_asking_is_recovered_at_once(url: str, name: str) -> None:
    """Before the first heartbeat Optuna's own recovery sees nothing, so the trial would be RUNNING for ever."""
    trials = open_trials(url, name, trials=1)
    trials.study.ask()  # created, and then killed: no heartbeat, no worker
    again = trials.ask()
    assert again is not None and again.number == 1
    assert by_state(trials) == {"FAIL": 1, "RUNNING": 1} and trials.counted(trials.all()) == 1


def test_killed_between_failing_a_stale_trial_and_queueing_it_again(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=1)
    trial = trials.ask()
    assert trial is not None
    trials.study.tell(trial, state=TrialState.FAIL)  # what `fail_stale_trials` does first
    again = trials.ask()
    assert again is not None and again.params == trial.params
    assert trials.ask() is None


def test_living_worker_keeps_its_trial(url: str, name: str) -> None:
    """A trial that lasts much longer than the grace period is kept; without a heartbeat it is lost."""
    trials = open_trials(url, name, trials=2)
    living, dead = trials.ask(), trials.ask()
    assert living is not None and dead is not None
    with Heartbeat(trials.storage, living._trial_id):
        time.sleep(4.5)
        again = trials.ask()
    assert again is not None and again.params == dead.params
    assert trials.tell(living, Outcome("complete", values=(1.0,)))
    assert not trials.tell(dead, Outcome("complete", values=(2.0,)))  # the worker was only asleep, and is too late
    assert trials.tell(again, Outcome("complete", values=(3.0,)))
    assert [trial.value for trial in trials.all()] == [1.0, None, 3.0]


def test_interrupted_trial_is_done_again_and_a_failed_one_is_not(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=2)
    first, second = trials.ask(), trials.ask()
    assert first is not None and second is not None
    trials.tell(first, Outcome("interrupted", "asked to stop"))
    trials.tell(second, Outcome("failed", "crash"))
    count = TrialCount.of(trials.all())
    assert (count.waiting, count.failed, count.done) == (1, 1, 1)
    again = trials.ask()
    assert again is not None and again.params == first.params
    assert trials.ask() is None


def test_trial_that_kills_every_worker_does_not_hold_up_the_study(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=1)
    for _ in range(MAX_RETRIES + 1):
        trial = trials.ask()
        assert trial is not None
        trials.tell(trial, Outcome("interrupted"))
    assert trials.ask() is None and not trials.unfinished()


def test_nothing_but_failures_ends_the_study(sqlite: str, name: str) -> None:
    """If the trainer cannot work, the study does not try it a hundred times."""
    trials = open_trials(sqlite, name, trials=100)
    with pytest.raises(InfrastructureFailure, match="no such metric"):
        work(trials, lambda trial: Outcome("failed", "no such metric"))
    assert len(trials.all()) == GIVE_UP_AFTER


def test_infrastructure_failure_gives_the_trial_back(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=1)

    def fails(trial: optuna.Trial) -> Outcome:
        raise InfrastructureFailure("the store is gone")

    with pytest.raises(InfrastructureFailure, match="the store is gone"):
        work(trials, fails)
    assert TrialCount.of(trials.all()).waiting == 1
    assert work(trials, evaluate) and len(trials.all()) == 2


def test_deadline_begins_no_trial(sqlite: str, name: str) -> None:
    trials = open_trials(sqlite, name, trials=5)
    assert work(trials, evaluate, deadline=time.time() - 1)
    assert not trials.all()


def test_study_that_is_continued_draws_no_trial_twice(sqlite: str, name: str) -> None:
    """A study with one sampler seed is begun three times; if the generator started anew, trials would repeat."""
    drawn = []
    for total in (3, 6, 9):
        trials = open_trials(sqlite, name, trials=total, sampler="random")
        work(trials, evaluate)
        drawn = [trial.params["training.entropy_coef"] for trial in trials.all()]
    assert len(drawn) == len(set(drawn)) == 9
