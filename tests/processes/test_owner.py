"""Who is alive: exactly on the same machine, by signs of life elsewhere; and one orchestrator at a time."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.processes import owner
from pipeline.processes.owner import Held, Lock, Owner, is_local

HERE = Owner.here(Path("/r"))


def changed(**values: object) -> Owner:
    return HERE.model_copy(update=values)


def test_this_process_is_alive_whatever_it_says() -> None:
    assert HERE.state(None) == HERE.state(0.0) == "alive"
    assert Owner.read(HERE.model_dump_json()) == HERE and Owner.read("nonsense") is None


def test_a_machine_that_has_been_renamed_is_the_same() -> None:
    assert changed(host="before").state(None) == "alive"
    assert changed(host="before", started=HERE.started + 1).state(time.time()) == "gone"


OTHER = changed(host="elsewhere", boot="another", pid_namespace="pid:[1]")
NOW, FUTURE = 0.0, 3 * 24 * 3600.0


@pytest.mark.parametrize("sign", [NOW, FUTURE, -FUTURE], ids=["now", "in the future", "long ago"])
def test_a_lock_says_more_than_a_clock(tmp_path: Path, sign: float) -> None:
    path = tmp_path / "x.lock"
    lock = Lock(path, OTHER)
    assert OTHER.state(time.time() + sign, path) == "alive"
    lock.release(keep=True)
    assert OTHER.state(time.time() + sign, path) == "gone"


def test_a_lock_that_may_not_be_shared_counts_after_two_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "is_local", lambda path: False)
    path = tmp_path / "x.lock"
    Lock(path, OTHER).release(keep=True)
    for ago, state in ((10, "unknown"), (70, "gone"), (-70, "unknown")):
        assert OTHER.state(time.time() - ago, path) == state


def test_locks_that_say_nothing(tmp_path: Path) -> None:
    """None, another owner's, and a copy of one whose original may be held elsewhere."""
    path, copy = tmp_path / "x.lock", tmp_path / "y.lock"
    assert OTHER.state(None, path) == "unknown"
    Lock(path, HERE).release(keep=True)
    assert OTHER.state(None, path) == "unknown"
    lock = Lock(path, OTHER)
    copy.write_text(path.read_text())
    assert OTHER.state(None, copy) == "unknown" and OTHER.state(None, copy, private=True) == "gone"
    lock.release()


def test_a_file_system_without_locks_admits_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(owner.fcntl, "flock", refuse)
    Lock(tmp_path / "x.lock", OTHER).release(keep=True)
    assert OTHER.state(time.time(), tmp_path / "x.lock") == "unknown"


@pytest.mark.parametrize(("kind", "local"), [("ext4", True), ("nfs4", False), ("9p", False), ("fuse.sshfs", False)])
def test_the_innermost_mount_says_whether_a_file_system_is_local(
    kind: str, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = [SimpleNamespace(mountpoint=at, fstype=what) for at, what in (("/", "overlay"), ("/data", kind))]
    monkeypatch.setattr(owner.psutil, "disk_partitions", lambda **_: mounts)
    assert is_local(Path("/data/mlruns/x")) == local and is_local(Path("/database/x"))


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


@pytest.mark.parametrize("elsewhere", [changed(host="elsewhere", boot="another"), changed(pid_namespace="pid:[1]")])
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
