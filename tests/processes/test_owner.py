"""Who is alive: exactly on the same machine, by signs of life elsewhere; and one orchestrator at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.processes.owner import Held, Lock, Owner

HERE = Owner.here(Path("/r"))


def changed(**values: object) -> Owner:
    return HERE.model_copy(update=values)


def test_this_process_is_alive_whatever_it_says() -> None:
    assert HERE.state(None) == HERE.state(0.0) == "alive"
    assert Owner.read(HERE.model_dump_json()) == HERE and Owner.read("nonsense") is None


def test_a_process_id_that_is_used_again_is_somebody_else() -> None:
    assert changed(started=HERE.started + 1).state(time.time()) == "gone"


def test_a_process_that_has_ended_is_gone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert changed(pid=ended.pid).state(time.time()) == "gone"
    ended.wait()
    assert changed(pid=ended.pid).state(time.time()) == "gone"


def test_nothing_outlives_a_restart_of_the_machine() -> None:
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    before = changed(boot="another")
    assert before.state(booted - 60) == "gone"
    assert before.state(time.time()) == "unknown"  # another machine of the same name


@pytest.mark.parametrize("elsewhere", [changed(host="elsewhere"), changed(pid_namespace="pid:[1]")])
def test_of_somebody_elsewhere_only_a_days_silence_says_that_he_is_gone(elsewhere: Owner) -> None:
    assert elsewhere.state(None) == "unknown"
    assert elsewhere.state(time.time() - 3600 * 12) == "unknown"
    assert elsewhere.state(time.time() - 3600 * 25) == "gone"


def test_a_second_lock_is_refused_and_names_the_first(tmp_path: Path) -> None:
    first = Lock(tmp_path / "x.lock", HERE)
    with pytest.raises(Held, match=f"process {HERE.pid} on {HERE.host}"):
        Lock(tmp_path / "x.lock", HERE)
    first.release()
    assert not list(tmp_path.iterdir())
    Lock(tmp_path / "x.lock", HERE).release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.processes.owner import Lock, Owner\n"
        f"lock = Lock(Path({str(tmp_path / 'x.lock')!r}), Owner.here(Path('/')))\n"
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(Held, match=f"process {holder.pid}"):
        Lock(tmp_path / "x.lock", HERE)
    holder.kill()
    holder.wait()
    Lock(tmp_path / "x.lock", HERE).release()
