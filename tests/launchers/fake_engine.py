"""An engine of four functions over subprocess, whose whole memory is a folder: any process can ask it.

Files there make it queue (`hold`), be away (`away`), or take a job away (`take JOB`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.attempt.atomic import write_atomically
from pipeline.launchers.engine import EngineAway, Refused, State, portable

_SCRIPT = """
while [ -e hold ]; do sleep 0.05; done
echo > {id}.running
{command} >> {output} 2>&1 &
child=$!
trap 'kill -TERM $child' TERM
trap 'kill -USR1 $child' USR1
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code > {id}.ending
mv {id}.ending {id}.code
"""


class FakeEngine:
    """`refuses`: why it takes no job; None: it takes all."""

    name = "fake"

    def __init__(self, folder: Path, refuses: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._refuses = folder, refuses

    def submit(self, name: str, command: Sequence[str], folder: Path, output: Path) -> str:
        self._answer()
        if self._refuses is not None:
            raise Refused(self._refuses)
        job = secrets.token_hex(3)
        script = _SCRIPT.format(id=job, command=shlex.join(command), output=shlex.quote(str(output)))
        started = subprocess.run(  # it is nobody's child, as on another machine
            ["/bin/sh", "-c", 'setsid /bin/sh -c "$0" > /dev/null 2>&1 < /dev/null & echo $!', script],
            cwd=self.folder,
            env={**portable(os.environ), "FAKE_JOB": job},
            capture_output=True,
            text=True,
            check=True,
        )
        self._write(job, "json", json.dumps({"name": name, "pid": int(started.stdout)}))
        return job

    def state(self, job: str) -> State:
        self._answer()
        for kind in ("taken", "cancelled"):
            if self._has(job, kind) and not self._lives(job):
                return State("ended", why=f"it was {kind}", end=kind)  # type: ignore[arg-type]
        if self._has(job, "memory") and self._has(job, "code"):
            return State("ended", why="out of memory", end="out_of_memory")
        if self._has(job, "code"):
            code = int((self.folder / f"{job}.code").read_text())
            return State("ended", end="failed" if code else "done", code=code)
        if not self._has(job, "json") or not self._lives(job):
            return State("ended", end="unknown")
        if self._has(job, "again"):
            return State("queued", why="queued again")
        return State("running", where="node") if self._has(job, "running") else State("queued", why="held")

    def cancel(self, job: str) -> None:
        self._answer()
        self._end(job, "cancelled")

    def test(self) -> str:
        self._answer()
        if self._refuses is not None:
            raise Refused(self._refuses)
        return "it takes everything"

    def find(self, name: str) -> str | None:
        self._answer()
        for path in self.folder.glob("*.json"):
            if json.loads(path.read_text())["name"] == name and self._lives(path.stem):
                return path.stem
        return None

    # What happens to a job

    def take(self, job: str, number: int = signal.SIGTERM) -> None:
        """As preemption does."""
        self._end(job, "taken", number)

    def lose(self, job: str) -> None:
        """As a lost node: everything there is gone at once, and the engine says so."""
        self._write(job, "taken", "")
        self._kill_all(job)

    def forget(self, job: str) -> None:
        """As a scheduler does after some minutes."""
        for path in self.folder.glob(f"{job}.*"):
            path.unlink()

    def mark(self, job: str, kind: str) -> None:
        """`memory`: it has run out of memory. `again`: it is queued again."""
        self._write(job, kind, "")

    def close(self) -> None:
        """Ends all jobs."""
        for path in list(self.folder.glob("*.json")):
            self._kill_all(path.stem)

    def _kill_all(self, job: str) -> None:
        own = f"FAKE_JOB={job}".encode()
        pid = self._pid(job)
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if own in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)

    def _end(self, job: str, kind: str, number: int = signal.SIGTERM) -> None:
        """Ends it as Slurm does: all its processes get a signal, and after a while a kill."""
        if self._has(job, "code") or not self._has(job, "json"):
            return
        self._write(job, kind, "")
        if not self._has(job, "running"):
            self._kill_all(job)
            return
        with contextlib.suppress(OSError):
            os.kill(self._pid(job), number)

    def _lives(self, job: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            pid = self._pid(job)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    def _pid(self, job: str) -> int:
        return int(json.loads((self.folder / f"{job}.json").read_text())["pid"])

    def _has(self, job: str, kind: str) -> bool:
        return (self.folder / f"{job}.{kind}").exists()

    def _write(self, job: str, kind: str, text: str) -> None:
        write_atomically(self.folder / f"{job}.{kind}", text)

    def _answer(self) -> None:
        if (self.folder / "away").exists():
            time.sleep(0.05)
            raise EngineAway("the fake engine is away")
