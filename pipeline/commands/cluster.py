"""What `ladder check` asks a cluster: whether it answers, takes such jobs, and has nodes that find files and store."""

from __future__ import annotations

import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.attempt.folder import AttemptFolder
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.launchers.choose import make_engine
from pipeline.launchers.engine import EngineAway, Refused
from pipeline.launchers.remote import RemoteLauncher
from pipeline.processes.owner import file_system
from pipeline.tracking.access import tracking_root, tracking_uri
from pipeline.tracking.address import sqlite_file

PROBE_SECONDS = 60.0
"""How long a probe may wait for its turn and run."""
_NETWORKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "orangefs", "pvfs", "afs", "9p",
             "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "panfs", "wekafs", "daos")  # fmt: skip
"""Beginnings of the types of file systems that several machines share."""
_PROBE = """
import os, socket, sys, urllib.request
root, uri, word = sys.argv[1:]
assert open(os.path.join(root, word)).read() == word, "another file of this name"
open(os.path.join(root, word + ".seen"), "w").close()
print("boot", open("/proc/sys/kernel/random/boot_id").read().strip())
print("host", os.environ.get("SLURMD_NODENAME") or socket.gethostname())
if uri.startswith("http"):
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=10).read()
        print("store yes")
    except Exception as error:
        code = getattr(error, "code", None)
        print("store", "yes" if code in (401, 403) else f"no {error}")
"""


class Finding(NamedTuple):
    """One thing that was asked."""

    what: str
    good: bool | None
    """None: it could not be found out now."""
    words: str


def require_reachable_store(config: ExperimentConfig) -> None:
    """Refuses a store that a cluster's nodes cannot use.

    Raises:
        BadInput: it is an SQLite file on a network file system, whose locks SQLite cannot rely on.
    """
    if config.launcher.kind == "local":
        return
    uri = tracking_uri(config)
    file = sqlite_file(uri)
    if file is None:
        return
    kind = file_system(file)
    if kind is not None and kind.startswith(_NETWORKS):
        raise BadInput(
            f"tracking.uri: {uri} is an SQLite file on a network file system ({kind}), which launcher.kind: "
            f"{config.launcher.kind} cannot use; name a tracking server: tracking.uri=http://HOST:PORT"
        )


def ask_cluster(config: ExperimentConfig, seconds: float = PROBE_SECONDS) -> Iterator[Finding]:
    """What the cluster says, one thing after another. A job of some seconds looks at the rest from a node.

    Raises:
        BadInput: the store cannot be used by nodes.
    """
    require_reachable_store(config)
    engine = make_engine(config)
    assert engine is not None, "an experiment of this machine has no cluster"
    try:
        words = engine.test()
    except Refused as refused:
        yield Finding("jobs", False, f"{engine.name} takes no such job: {refused}")
        return
    except EngineAway as away:
        yield Finding("jobs", False, f"{engine.name} does not answer: {away}")
        return
    yield Finding("jobs", True, words)
    root = tracking_root(config)
    there = next(each for each in (root, *root.parents) if each.is_dir())
    word = f".ladder-probe-{secrets.token_hex(4)}"
    launcher = RemoteLauncher(engine, seconds, 2.0)
    with contextlib.closing(launcher), tempfile.TemporaryDirectory(dir=there, prefix=".ladder-check-") as name:
        folder = Path(name)
        (folder / word).write_text(word, encoding="utf-8")
        uri = tracking_uri(config)
        command = [sys.executable, "-c", _PROBE, str(folder), _without_user(uri), word]
        job = launcher.launch(command, {}, folder)
        until = time.monotonic() + seconds
        while (ended := job.wait(0.5)) is None and time.monotonic() < until:
            pass
        waited = job.waiting
        log = AttemptFolder(folder).log
        said = dict(
            line.split(" ", 1) for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if " " in line
        )
        if ended is None:
            what = f"not known yet: after {seconds:.0f} s the probe is {waited or 'still running'}"
            yield Finding("shared root", None, what)
        elif ended.code != 0 or "host" not in said:
            why = ended.refused or ended.cancelled or ended.taken or " ".join(ended.log_tail[-1:]) or str(ended.detail)
            yield Finding("shared root", False, f"a node does not find {there} at this path: {why}")
        else:
            yield Finding("shared root", True, f"{there} is at the same path on {said['host']}")
            yield _store(uri, said)
        job.kill()


def _store(uri: str, said: dict[str, str]) -> Finding:
    if uri.startswith("http"):
        answer = said.get("store", "no")
        good = answer == "yes"
        return Finding(
            "store", good, f"{said['host']} {'reaches' if good else 'does not reach'} the server{answer[3:]}"
        )
    if sqlite_file(uri) is None:
        return Finding("store", None, "a database is asked by the trainers themselves, with its own protocol")
    with contextlib.suppress(OSError):
        if Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip() == said.get("boot"):
            return Finding("store", True, "an SQLite file, and the node is this machine")
    return Finding(
        "store", False, f"an SQLite file of this machine, which {said['host']} cannot use: tracking.uri=http://…"
    )


def _without_user(uri: str) -> str:
    """A server's address without the password, which is nobody's business on a command line."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
