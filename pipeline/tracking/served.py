"""A server in front of an SQLite store, for trainers whose MLflow is of another version.

MLflow opens an SQLite file only with the version that made it. What it says to a server changes far less.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import requests

from pipeline.errors import InfrastructureFailure
from pipeline.processes.group import ProcessGroup, start_leashed

_ASK = """
from importlib.metadata import PackageNotFoundError, version
for name in ("mlflow", "mlflow-skinny"):
    try: print(version(name)); break
    except PackageNotFoundError: pass
"""
_ASK_SECONDS, _START_SECONDS = 20.0, 120.0


def other_version(command: Sequence[str]) -> str | None:
    """Version of the MLflow that a trainer's command would import, if it is another one than here.

    Only an interpreter can be asked: None where the command is no Python, has no MLflow, or does not answer.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which(command[0], path=path)
    if found is None or not Path(found).name.startswith("python") or Path(found).parent == Path(sys.executable).parent:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [found, "-c", _ASK]
        asked = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=_ASK_SECONDS, check=True)
        theirs = asked.stdout.strip()
        return theirs if theirs and theirs != version("mlflow") else None
    return None


class ServedStore:
    """`mlflow server` on 127.0.0.1, in front of an SQLite store. It ends with this process at the latest."""

    def __init__(self, store: str, log: Path) -> None:
        """Starts the server; returns when it answers. `store`: address of the SQLite file.

        Raises:
            InfrastructureFailure: it does not answer.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        log.parent.mkdir(parents=True, exist_ok=True)
        command += ["--workers", "1", "--uvicorn-opts", "--log-level warning", "--backend-store-uri", store]
        process = start_leashed(command, log, stdin=subprocess.DEVNULL, env=environment)
        self._group = ProcessGroup(process, log)
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._group.wait(0.2) is None:
            with contextlib.suppress(requests.RequestException), requests.Session() as session:
                session.trust_env = False  # a proxy of the user's is not asked for this machine
                session.get(f"{self.uri}/health", timeout=2)
                return
        self.close()
        raise InfrastructureFailure(f"the MLflow server for the trainer does not answer; its log: {log}")

    def close(self) -> None:
        self._group.kill()
