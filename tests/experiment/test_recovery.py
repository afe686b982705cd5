"""What a dead orchestrator left RUNNING is ended, once, and only if it still is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.attempt.folder import experiment_lock
from pipeline.errors import BadInput
from pipeline.experiment import recovery
from pipeline.experiment.recovery import reconcile, take_up
from pipeline.health.verdict import Verdict
from pipeline.processes.owner import Lock, Owner
from pipeline.tracking import tags
from pipeline.tracking.runs import AttemptRun, LadderRun
from pipeline.tracking.store import Store
from tests.conftest import small_config


def left(empty_store: Store) -> str:
    """An experiment whose orchestrator, with a process id that is used again, is gone."""
    owner = Owner.here(empty_store.root).model_copy(update={"started": 1})
    return empty_store.start_parent(small_config(), {tags.OWNER: owner.model_dump_json()})


def test_what_was_left_is_ended_once(empty_store: Store) -> None:
    parent, told = left(empty_store), []
    for _ in range(2):
        reconcile(empty_store, told.append)
    run = empty_store.run(parent)
    assert run is not None and run.status == "KILLED" and len(told) == 1 and parent in told[0]


@pytest.mark.parametrize("by", ["it has ended", "another process goes on with it"])
def test_what_is_no_longer_so_is_left_alone(empty_store: Store, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at all that is RUNNING and the lock on this one."""
    parent, told = left(empty_store), []
    seen = empty_store.left_running()
    monkeypatch.setattr(empty_store, "left_running", lambda: seen)
    if by == "it has ended":
        empty_store.end_parent(parent, "healthy", "v3", None, "a note")
    else:
        empty_store.set_tags(parent, {tags.OWNER: Owner.here(empty_store.root).model_dump_json()})
    reconcile(empty_store, told.append)
    run = empty_store.run(parent)
    assert run is not None and not told
    assert run.status == ("FINISHED" if by == "it has ended" else "RUNNING")


GONE = {"started": 1}
"""What makes of this process one that is gone."""


def with_attempt(store: Store, owner: Owner) -> tuple[str, str]:
    """An experiment and its attempt, as they are while it runs."""
    config = small_config()
    parent = store.start_parent(config, {tags.OWNER: owner.model_dump_json()})
    attempt = store.start_attempt(parent, config, rung="v3", number=0, diff={}, warm_start=None, reason="first")
    return parent, attempt


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED", "RUNNING"])
@pytest.mark.parametrize("whose", ["attempt", "parent", "both"])
def test_a_status_that_another_program_has_set_hides_no_missing_verdict(
    empty_store: Store, status: str, whose: str
) -> None:
    """A trainer that leaves `with mlflow.start_run()`, or a person in the UI."""
    owner = Owner.here(empty_store.root).model_copy(update=GONE)
    parent, attempt = with_attempt(empty_store, owner)
    for run_id in {"attempt": [attempt], "parent": [parent], "both": [parent, attempt]}[whose]:
        empty_store.client.set_terminated(run_id, status)
    told: list[str] = []
    for _ in range(2):
        reconcile(empty_store, told.append)
    assert len(told) == 1
    runs = [empty_store.client.get_run(run_id) for run_id in (parent, attempt)]
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    assert runs[0].data.tags[tags.OUTCOME] == runs[1].data.tags[tags.VERDICT] == "interrupted"
    assert runs[0].data.metrics["cost/minutes"] == runs[1].data.metrics["cost/minutes"]


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
def test_an_experiment_that_is_run_is_left_alone_whatever_its_status_is(empty_store: Store, status: str) -> None:
    parent, attempt = with_attempt(empty_store, Owner.here(empty_store.root))
    for run_id in (parent, attempt):
        empty_store.client.set_terminated(run_id, status)
    told: list[str] = []
    reconcile(empty_store, told.append)
    with pytest.raises(BadInput, match="is being run by process"):
        take_up(empty_store, parent, lambda config: config)
    assert not told and tags.VERDICT not in empty_store.client.get_run(attempt).data.tags


def test_what_has_a_verdict_keeps_it(empty_store: Store) -> None:
    owner = Owner.here(empty_store.root).model_copy(update=GONE)
    _, attempt = with_attempt(empty_store, owner)
    empty_store.end_attempt(attempt, Verdict(name="crash"))
    reconcile(empty_store, lambda _: None)
    run = empty_store.client.get_run(attempt)
    assert (run.data.tags[tags.VERDICT], run.info.status) == ("crash", "FAILED")


def test_a_run_that_is_deleted_while_it_is_at_work_still_gets_its_verdict(empty_store: Store) -> None:
    _, attempt = with_attempt(empty_store, Owner.here(empty_store.root))
    empty_store.client.delete_run(attempt)
    empty_store.end_attempt(attempt, Verdict(name="crash"))
    run = empty_store.client.get_run(attempt)
    assert (run.data.tags[tags.VERDICT], run.info.lifecycle_stage) == ("crash", "active")


def test_an_experiment_that_was_deleted_is_not_resumed(empty_store: Store) -> None:
    owner = Owner.here(empty_store.root).model_copy(update=GONE)
    parent, _ = with_attempt(empty_store, owner)
    empty_store.client.delete_run(parent)
    with pytest.raises(BadInput, match="has been deleted"):
        take_up(empty_store, parent, lambda config: config)
    told: list[str] = []
    reconcile(empty_store, told.append)
    assert not [each for each in told if "cannot" in each]


def test_what_was_left_under_another_path_is_ended(empty_store: Store) -> None:
    owner = Owner.here(empty_store.root).model_copy(update={**GONE, "root": "/where/it/was"})
    parent, attempt = with_attempt(empty_store, owner)
    reconcile(empty_store, lambda _: None)
    assert {empty_store.client.get_run(run_id).info.status for run_id in (parent, attempt)} == {"KILLED"}


@pytest.mark.parametrize("days", [-3, 0, 3], ids=["past", "now", "future"])
@pytest.mark.parametrize("signs", [True, False])
def test_an_owner_elsewhere_is_waited_for_whatever_its_clock_says(
    empty_store: Store, days: int, signs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a lock that can be seen, only a sign of life tells."""
    owner = Owner.here(empty_store.root).model_copy(update={"boot": "another", "host": "elsewhere"})
    parent, _ = with_attempt(empty_store, owner)

    def sign(seconds: float) -> None:
        at = datetime.now(UTC) + timedelta(days=days, seconds=seconds)
        empty_store.set_tags(parent, {tags.ALIVE: at.isoformat(timespec="seconds")})

    sign(0)
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if signs:
            sign(clock[0] + 1)

    monkeypatch.setattr(recovery.time, "sleep", sleep)
    monkeypatch.setattr(recovery.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(recovery, "_LOOK_SECONDS", 30.0)
    monkeypatch.setattr(empty_store, "patience", None)
    if signs and days >= 0:
        with pytest.raises(BadInput, match="is being run by process"):
            take_up(empty_store, parent, lambda config: config)
    else:
        past = take_up(empty_store, parent, lambda config: config)
        past.lock.release()
        assert clock[0] == pytest.approx(120.0 if days >= 0 else 0.0, abs=2)


def test_a_lock_that_is_free_needs_no_waiting(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's successor, on the same volume."""
    owner = Owner.here(empty_store.root).model_copy(update={"pid_namespace": "pid:[1]", "host": "pod-a"})
    parent, attempt = with_attempt(empty_store, owner)
    empty_store.set_tags(parent, {tags.ALIVE: datetime.now(UTC).isoformat()})
    lock = Lock(experiment_lock(empty_store.root, parent), owner)
    told: list[str] = []
    reconcile(empty_store, told.append)
    assert not told
    lock.release(keep=True)  # as the kernel does when it is killed
    reconcile(empty_store, told.append)
    assert len(told) == 1 and empty_store.client.get_run(attempt).info.status == "KILLED"


def test_what_cannot_be_ended_is_one_line_and_the_others_are(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, told = left(empty_store), left(empty_store), []
    attempts = empty_store.attempts

    def fail_for_one(parent: LadderRun) -> list[AttemptRun]:
        if parent.run_id == second:
            raise OverflowError("cannot convert float\ninfinity to integer")
        return attempts(parent)

    monkeypatch.setattr(empty_store, "attempts", fail_for_one)
    reconcile(empty_store, told.append)
    assert len(told) == 2 and any(second in each and "cannot be ended" in each for each in told)
    assert not any("\n" in each for each in told)
    ended, stays = empty_store.run(first), empty_store.run(second)
    assert ended is not None and ended.status == "KILLED" and stays is not None and stays.status == "RUNNING"
