"""The room of a machine: trainers wait for it, in their order, and none is passed by."""

from __future__ import annotations

import contextlib
import threading

import pytest

from pipeline.experiment.room import NO_BOUNDS, Need, Room, need_of
from tests.conftest import small_config
from tests.processes.maker import eventually


def take(room: Room, cores: float, memory: float = 1.0) -> contextlib.ExitStack | None:
    """Takes so much at once; None: it would have to wait."""
    held = contextlib.ExitStack()
    waiting = room.wait_for(Need(cores, memory), held)
    try:
        next(waiting)
    except StopIteration:
        return held
    waiting.close()
    return None


@pytest.mark.parametrize(("cores", "memory"), [(2, 1), (1, 6)], ids=["cores", "memory"])
def test_what_does_not_fit_waits_until_there_is_room(cores: float, memory: float) -> None:
    room = Room(2, 8)
    first = take(room, 1, 4)
    assert first is not None and take(room, cores, memory) is None
    first.close()
    assert take(room, cores, memory) is not None


def test_one_that_needs_more_than_there_is_runs_alone() -> None:
    room = Room(2, 8)
    large = take(room, 16, 100)
    assert large is not None and take(room, 1) is None
    large.close()
    assert take(room, 1) is not None


def test_a_large_one_is_not_passed_by() -> None:
    room = Room(2, 8)
    first = take(room, 1)
    assert first is not None
    held, began = contextlib.ExitStack(), threading.Event()

    def large() -> None:
        for _ in room.wait_for(Need(2, 1), held):
            began.set()

    thread = threading.Thread(target=large)
    thread.start()
    began.wait()
    assert take(room, 1) is None  # though there is room for it
    first.close()
    thread.join()
    assert take(room, 1) is None
    held.close()
    assert take(room, 1) is not None


def test_one_that_gives_up_is_in_nobodys_way() -> None:
    room = Room(2, 8)
    first = take(room, 2)
    assert first is not None and take(room, 2) is None and take(room, 1) is None
    first.close()
    assert take(room, 2) is not None


def test_what_an_attempt_needs() -> None:
    own = small_config(training__workers=2, training__threads=3)
    assert need_of(own).cores == 6 and need_of(own).memory_gb > 1
    assert need_of(small_config(training__workers=2, training__parallel=False)).cores == 1
    script = {"trainer__command": ["python", "train.py"]}
    assert need_of(small_config(**script)) == Need(1, 1)
    assert need_of(small_config(**script, launcher__request={"cores": 0.5, "memory_gb": 7})) == Need(0.5, 7)
    assert need_of(small_config(launcher__kind="slurm")) == Need(0, 0)


def test_the_room_of_this_machine() -> None:
    here = Room.here()
    assert here.cores >= 1 and 0 < here.memory_gb < 1e6
    assert take(NO_BOUNDS, 1e9, 1e9) is not None
    eventually(lambda: take(here, 0.1, 0.001))
