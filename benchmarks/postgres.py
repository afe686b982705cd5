"""A PostgreSQL cluster of a test's own, on 127.0.0.1, with Debian's binaries."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = "not-to-be-shown"


def binaries() -> Path | None:
    """The folder of the newest version's programs; None where there is none, or nobody to run it (not root)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found or (os.geteuid() == 0 and _user() is None):
        return None
    return found[-1].parent


def _user() -> str | None:
    names = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


class Cluster:
    """A server that can be taken away and brought back; `url` is that of an empty database."""

    def __init__(self) -> None:
        programs = binaries()
        assert programs is not None
        self._programs = programs
        user = _user() if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        secret = self._folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        if user is not None:
            for path in (self._folder, secret):
                shutil.chown(path, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://ladder:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._options: dict[str, Any] = {"user": user, "cwd": self._folder, **quiet}
        self._server: subprocess.Popen[bytes] | None = None
        words = ["-D", "data", "-U", "ladder", "-A", "scram-sha-256", "--pwfile=password", "--no-sync", "-E", "UTF8"]
        subprocess.run([programs / "initdb", *words], check=True, **self._options)
        self.start()

    def start(self) -> None:
        """Returns when it answers."""
        words = ["-D", "data", "-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder), "-c", "fsync=off"]
        self._server = subprocess.Popen([self._programs / "postgres", *words], **self._options)
        _wait_until_ready(self._programs, self._port, self._server)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """At once, as if its machine had lost its power; or as the signal says."""
        if self._server is None:
            return
        self._server.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(timeout=5)
        self._server.kill()
        self._server.wait()
        self._server = None

    def close(self) -> None:
        self.stop(signal.SIGINT)  # a fast shutdown: it waits for no client
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Starts one and yields the URL of an empty database; ends it and removes all of it."""
    with contextlib.closing(Cluster()) as made:
        yield made.url


def _wait_until_ready(programs: Path, port: int, server: subprocess.Popen[bytes], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.1)
