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


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Starts one and yields the URL of an empty database; ends it and removes all of it."""
    programs = binaries()
    assert programs is not None
    user = _user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if user is not None:
        for path in (folder, secret):
            shutil.chown(path, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    make = [
        "initdb",
        "-D",
        "data",
        "-U",
        "ladder",
        "-A",
        "scram-sha-256",
        "--pwfile=password",
        "--no-sync",
        "-E",
        "UTF8",
    ]
    serve = ["postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    try:
        subprocess.run([programs / make[0], *make[1:]], check=True, **options)  # type: ignore[call-overload]
        server = subprocess.Popen([programs / serve[0], *serve[1:]], **options)  # type: ignore[call-overload]
        try:
            _wait_until_ready(programs, port, server)
            yield f"postgresql://ladder:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: it waits for no client
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=5)
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(programs: Path, port: int, server: subprocess.Popen[bytes], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError("PostgreSQL did not start")
        time.sleep(0.1)
