"""A real tracking server: PostgreSQL and `mlflow server`, both on 127.0.0.1, both of which can be taken away."""

from __future__ import annotations

import contextlib
import os
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

from benchmarks.postgres import Cluster, binaries


def why_not() -> str | None:
    """What is missing on this machine, or None."""
    if binaries() is None:
        return "PostgreSQL is not installed, or there is no user to run it"
    if find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    return None


class TrackingServer:
    """A database, and a server in front of it."""

    def __init__(self) -> None:
        self.database = Cluster()
        self._artifacts = Path(tempfile.mkdtemp(prefix="tracking-server-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self._port}"
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """The server; returns when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        database = self.database.url.replace("postgresql:", "postgresql+psycopg2:")
        self._server = subprocess.Popen(
            [*command, "--workers=1", f"--backend-store-uri={database}", f"--artifacts-destination={self._artifacts}"],
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
        self.database.close()
        shutil.rmtree(self._artifacts, ignore_errors=True)
