"""Where a study lives: Optuna's relational storage, an SQLite file or PostgreSQL, with a lock and a heartbeat."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from pipeline.errors import InfrastructureFailure
from pipeline.secrets import learn, without_passwords
from pipeline.tuning.study import with_driver

optuna.logging.set_verbosity(optuna.logging.WARNING)
# Optuna warns that the heartbeat is experimental and belongs to Study.optimize. Study.optimize runs a thread that
# beats, and looks for stale trials before each new one; this package does both itself.
warnings.filterwarnings("ignore", category=ExperimentalWarning, module=r"optuna|pipeline\.tuning")
warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with")

STALE_AFTER = 3
"""Number of missed heartbeats after which a worker counts as dead."""
_BUSY_SECONDS = 60.0


def shown(url: str) -> str:
    """The URL without its password."""
    return without_passwords(make_url(url).render_as_string(hide_password=True))


def sqlite_file(url: str) -> Path | None:
    """The absolute path of an SQLite storage's file; None for another kind of storage."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    return Path(str(parsed.database)).expanduser().resolve()


@contextlib.contextmanager
def storage_reachable(url: str) -> Iterator[None]:
    """Turns a failure of the storage inside the context into an InfrastructureFailure of one line."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = error.__cause__ or error  # Optuna's own message does not say what happened
        text = without_passwords(" ".join(str(cause).split()))
        raise InfrastructureFailure(f"study storage {shown(url)}: {text[:300]}") from error


@contextlib.contextmanager
def turn(url: str) -> Iterator[None]:
    """A lock that one process holds at a time, among all that share the storage.

    Optuna hands out a queued trial by reading its state and then writing it. SQLite has no row locks, so two workers
    may get the same trial. Counting trials before creating one is a race on any database. The lock is a lock on a file
    beside the SQLite file, or a session's advisory lock in PostgreSQL; both are released when their holder dies.
    """
    file = sqlite_file(url)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (file.parent / f".{file.name}.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    engine = create_engine(with_driver(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    key = zlib.crc32(b"ladder tune")
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})


def open_storage(url: str, heartbeat_seconds: int) -> RDBStorage:
    """Opens the storage, and makes its tables if there are none. The caller holds the lock (`turn`).

    Args:
        url: URL of the storage.
        heartbeat_seconds: seconds between two heartbeats of a worker.

    Raises:
        InfrastructureFailure: the storage is out of reach, or is not Optuna's.
    """
    learn(url)
    file = sqlite_file(url)
    with storage_reachable(url):
        if file is not None:
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute("PRAGMA journal_mode=wal")  # readers and writers do not wait for each other
        return RDBStorage(
            with_driver(url).render_as_string(hide_password=False) if file is None else f"sqlite:///{file}",
            engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}} if file else {"pool_pre_ping": True},
            heartbeat_interval=heartbeat_seconds,
            grace_period=STALE_AFTER * heartbeat_seconds,
        )


class Heartbeat:
    """A thread that records in the storage that a trial's worker is alive, while the context lasts."""

    def __init__(self, storage: RDBStorage, trial_id: int) -> None:
        self._storage, self._trial_id = storage, trial_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        interval = self._storage.get_heartbeat_interval() or 1
        while not self._ended.wait(interval):
            # If the storage is away for a moment, a beat is missed and the training goes on.
            with contextlib.suppress(StorageInternalError, SQLAlchemyError):
                self._storage.record_heartbeat(self._trial_id)
        self._storage.remove_session()
