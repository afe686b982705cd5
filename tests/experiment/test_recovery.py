"""What a dead orchestrator left RUNNING is ended, once, and only if it still is."""

from __future__ import annotations

import pytest

from pipeline.experiment.recovery import reconcile
from pipeline.processes.owner import Owner
from pipeline.tracking import tags
from pipeline.tracking.runs import AttemptRun, LadderRun
from pipeline.tracking.store import Store
from tests.conftest import small_config
from tests.end_to_end.here import HereLauncher


def left(empty_store: Store) -> str:
    """An experiment whose orchestrator, with a process id that is used again, is gone."""
    owner = Owner.here(empty_store.root).model_copy(update={"started": 1})
    return empty_store.start_parent(small_config(), {tags.OWNER: owner.model_dump_json()})


def test_what_was_left_is_ended_once(empty_store: Store) -> None:
    parent, told = left(empty_store), []
    for _ in range(2):
        reconcile(empty_store, HereLauncher(), told.append)
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
    reconcile(empty_store, HereLauncher(), told.append)
    run = empty_store.run(parent)
    assert run is not None and not told
    assert run.status == ("FINISHED" if by == "it has ended" else "RUNNING")


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
    reconcile(empty_store, HereLauncher(), told.append)
    assert len(told) == 2 and any(second in each and "cannot be ended" in each for each in told)
    assert not any("\n" in each for each in told)
    ended, stays = empty_store.run(first), empty_store.run(second)
    assert ended is not None and ended.status == "KILLED" and stays is not None and stays.status == "RUNNING"
