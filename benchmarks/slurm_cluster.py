"""A Slurm of one's own: munged, slurmctld and two virtual nodes, on 127.0.0.1, under one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.slurm_processes import end_jobs

_DAEMONS = ("n1", "n2", "slurmctld", "munged")
"""In the order in which they end."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
_PATIENCE_SECONDS = 20.0
_SLURM = """
ClusterName=test
FirstJobId={first_job}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/{tracking}
TaskPlugin=task/{task}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
ReturnToService=2
KillWait=5
SlurmdTimeout=15
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MpiDefault=none
NodeName=n[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{second}] CPUs=4 RealMemory=4000
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=9
"""
_CGROUPS = Path("/sys/fs/cgroup/memory")
"""Where version 1 of control groups is mounted, for memory."""
_FIRST_PORT, _LAST_PORT = 6800, 6898
_JOBS = 100_000
"""So many ids of jobs a cluster has to itself: control groups are named by node and job, also those of others here."""
_STOP_SECONDS = 10.0
"""For so long, a daemon has time to end in order."""


def why_not() -> str | None:
    """Why there can be no Slurm here; None: there can."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        return f"no Slurm here: {', '.join(missing)} missing"
    if os.getuid() != 0:
        return "Slurm's daemons need root here"
    return None


class SlurmCluster:
    """Two virtual nodes of four cores each. `environment` leads Slurm's commands to them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.has_cgroups = _CGROUPS.is_dir() and os.access(_CGROUPS, os.W_OK)
        controller, first = _free_ports()
        text = _SLURM.format(
            folder=self.folder,
            controller=controller,
            first=first,
            second=first + 1,
            first_job=(controller - _FIRST_PORT + 1) * _JOBS,
            tracking="cgroup" if self.has_cgroups else "linuxproc",
            task="cgroup" if self.has_cgroups else "none",
        )
        self._conf = self.folder / "slurm.conf"
        self._conf.write_text(text, encoding="utf-8")
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n", encoding="utf-8")
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.environment = {"SLURM_CONF": str(self._conf)}
        try:
            self.start("munged")
            self._await(lambda: (self.folder / "munge.socket").exists(), "munged")
            self.start("slurmctld")
            self.start("n1")
            self.start("n2")
            self.await_nodes()
        except BaseException:
            self.close()
            raise

    def start(self, name: str) -> None:
        """Starts a daemon: munged, slurmctld, or the slurmd of the node with this name."""
        own = self.folder
        commands = {
            "munged": [
                *("munged", "--foreground", "--force", f"--socket={own}/munge.socket", f"--key-file={own}/munge.key"),
                *(f"--pid-file={own}/munged.pid", f"--log-file={own}/munged.log", f"--seed-file={own}/munge.seed"),
            ],
            "slurmctld": ["slurmctld", "-D", "-f", f"{own}/slurm.conf"],
        }
        command = commands.get(name, ["slurmd", "-D", "-N", name, "-f", f"{own}/slurm.conf"])
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        with (own / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment, "PATH": path},
                start_new_session=True,
            )

    def stop(self, name: str, number: int = signal.SIGKILL) -> None:
        """Ends a daemon. The steps of a node live on without it."""
        process = self.processes.pop(name, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # it does not answer, or a child of it lives on
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def end_jobs(self, job: str | None = None) -> None:
        """Kills all processes of all jobs, or of this one, whatever their node's daemon knows of them."""
        end_jobs(self._conf, job)

    def await_nodes(self) -> None:
        """Waits until both nodes are there and have nothing to do."""
        self._await(lambda: set(self.run("sinfo", "-h", "-o", "%T %D").split("\n")) == {"idle 2", ""}, "the nodes", 90)

    def run(self, *words: str, check: bool = True) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            encoding="utf-8",
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        """Ends all jobs and daemons, and removes the folder. Of no job a process is left, also where a daemon is."""
        try:
            if all(name in self.processes and self.processes[name].poll() is None for name in _DAEMONS):
                with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                    self.run("scancel", "--user=root", check=False)
                    self._await(lambda: not self.run("squeue", "-h", check=False).strip(), "the jobs' end")
            for name in _DAEMONS:
                self.stop(name, signal.SIGTERM)
            self.end_jobs()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _await(self, true: Callable[[], bool], what: str, seconds: float = _PATIENCE_SECONDS) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                if true():
                    return
            time.sleep(0.1)
        logs = "".join(each.read_text(errors="replace", encoding="utf-8")[-1500:] for each in self.folder.glob("*.out"))
        nodes = self.run("scontrol", "show", "node", "-o", check=False)
        raise RuntimeError(f"Slurm: {what} did not come\n{nodes}\n{logs}")


def _free_ports() -> tuple[int, int]:
    """A free port for the controller, and the first of two free neighbours for the nodes."""
    for controller in range(_FIRST_PORT, _LAST_PORT, 3):
        with contextlib.ExitStack() as held:
            try:
                for port in range(controller, controller + 3):
                    each = held.enter_context(socket.socket())
                    each.bind(("127.0.0.1", port))
            except OSError:
                continue
            return controller, controller + 1
    raise RuntimeError("no three free ports in a row")
