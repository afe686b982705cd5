"""A real tracking server: PostgreSQL and `mlflow server`, both on 127.0.0.1, both of which can be taken away."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

USER = "postgres"  # PostgreSQL refuses to run as root


def why_not() -> str | None:
    """What is missing on this machine, or None."""
    if _programs() is None:
        return "PostgreSQL is not installed"
    if find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _has_user()):
        return f"no user {USER} to run PostgreSQL"
    return None


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


def _has_user() -> bool:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER) is not None
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TrackingServer:
    """A database, and a server in front of it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tracking-server-", dir="/tmp"))
        self._as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        if self._as_user:
            shutil.chown(self._folder, USER)
        self._data, self._log = self._folder / "data", self._folder / "log"
        self._port, self._database_port = _free_port(), _free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._server: subprocess.Popen[bytes] | None = None
        self._postgres("initdb", "-D", str(self._data), "-U", "ladder", "-A", "trust", "--no-sync")
        self.start_database()
        self._postgres("createdb", "-h", "127.0.0.1", "-p", str(self._database_port), "-U", "ladder", "mlflow")
        self.start()

    def _postgres(self, program: str, *words: str) -> None:
        command = [*self._as_user, f"{_programs()}/{program}", *words]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def start_database(self) -> None:
        options = f"-p {self._database_port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off"
        self._postgres("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._log), "-o", options, "start")

    def stop_database(self) -> None:
        self._postgres("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    def start(self) -> None:
        """The server; returns when it answers."""
        artifacts = self._folder / "artifacts"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        database = f"postgresql+psycopg2://ladder@127.0.0.1:{self._database_port}/mlflow"
        self._server = subprocess.Popen(
            [*command, "--workers", "1", "--backend-store-uri", database, "--artifacts-destination", str(artifacts)],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            time.sleep(0.2)
        raise AssertionError("the tracking server does not answer")

    def stop(self) -> None:
        """At once, as a machine does that loses its power."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def close(self) -> None:
        self.stop()
        self.stop_database()
        shutil.rmtree(self._folder, ignore_errors=True)
