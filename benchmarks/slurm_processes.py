"""The processes that a Slurm of one's own has on this machine: the daemons that run steps, and all that these run.

Other clusters may be here, also with nodes of the same names, so a name alone tells nothing. A step's daemon belongs to
the cluster whose `slurm.conf` it was started with. From it, its children and its control group lead to the rest. Where
it is dead, its tasks still show what `slurmd` gave them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_JOB_CGROUP = re.compile(r"^\d+:([^:]+):(/[^:]*/uid_\d+/job_\d+)(?:/.*)?$", re.MULTILINE)
_PATIENCE_SECONDS = 20.0


def processes_of_jobs(conf: Path, job: str | None = None) -> set[psutil.Process]:
    """What lives of the jobs of the cluster with this `slurm.conf`, or of this job alone."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if _is_of(process, conf, job):
                found |= {process, *process.children(recursive=True)}
    for cgroup in _cgroups(found):
        found |= set(_in(cgroup))
    return {process for process in found if _lives(process)}


def end_jobs(conf: Path, job: str | None = None) -> None:
    """Kills what lives of the jobs, and removes their control groups. Returns when it is gone.

    Raises:
        RuntimeError: a process lives on all the same.
    """
    until, cgroups = time.monotonic() + _PATIENCE_SECONDS, set[Path]()
    while left := processes_of_jobs(conf, job):
        if time.monotonic() > until:
            raise RuntimeError(f"Slurm: of the jobs there live on {sorted(each.pid for each in left)}")
        cgroups |= _cgroups(left)
        for cgroup in cgroups:
            with contextlib.suppress(OSError):  # a frozen process dies when it is thawed
                (cgroup / "freezer.state").write_text("THAWED", encoding="ascii")
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    for cgroup in cgroups:
        for folder in sorted((cgroup, *(path for path in cgroup.rglob("*") if path.is_dir())), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_of(process: psutil.Process, conf: Path, job: str | None) -> bool:
    """Whether it runs a step, or is a task that shows its origin."""
    environment = process.environ()
    if environment.get("SLURM_CONF") != str(conf):
        return False
    if process.name().startswith("slurmstepd"):
        return job is None or f"[{job}." in " ".join(process.cmdline())
    # A submitter has the path of `slurm.conf` too. It has no job, or, on a real cluster, that of this process.
    its = environment.get("SLURM_JOB_ID")
    return its not in (None, os.environ.get("SLURM_JOB_ID")) and job in (None, its)


def _cgroups(processes: set[psutil.Process]) -> set[Path]:
    """The folders of the control groups of their jobs, without those of a job that this process is in."""
    return {path for process in processes for path in _cgroups_of(process.pid)} - set(_cgroups_of(os.getpid()))


def _cgroups_of(process: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8")
        yield from (_CGROUPS / name / path.lstrip("/") for name, path in _JOB_CGROUP.findall(text))


def _in(cgroup: Path) -> Iterator[psutil.Process]:
    for path in (cgroup / "cgroup.procs", *cgroup.rglob("cgroup.procs")):
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="ascii").split():
                with contextlib.suppress(psutil.Error):
                    yield psutil.Process(int(line))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
