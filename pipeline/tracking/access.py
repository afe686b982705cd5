"""The way to an MLflow store: where it is, how it is made, and which of its errors may pass by themselves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from pipeline.attempt.file import URI_VARIABLE
from pipeline.attempt.folder import mlflow_database
from pipeline.attempt.spool import Report
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, DiskFull, InfrastructureFailure, StoreAway
from pipeline.secrets import HIDDEN, lacks_password, learn, without_passwords
from pipeline.tracking.environment import prepare_mlflow

_TEMPORARY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED")
_NO_ANSWER = {
    requests.Timeout: "no answer",
    requests.ConnectionError: "no connection",
    requests.exceptions.RetryError: "it answers that it has failed",
}
_METRICS_AT_ONCE = 1000


def tracking_root(config: ExperimentConfig) -> Path:
    """The folder of everything that an experiment writes, absolute, with `~` for the home folder. Raises BadInput."""
    try:
        return Path(config.tracking.root).expanduser().resolve()
    except RuntimeError as error:  # `~name` of a user that does not exist
        raise BadInput(f"tracking.root: {config.tracking.root!r}: {error}") from error


def tracking_uri(config: ExperimentConfig) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else the SQLite file under `tracking.root`. Raises BadInput."""
    uri = os.environ.get(URI_VARIABLE) or config.tracking.uri or default_uri(tracking_root(config))
    if uri.rstrip("/") == "sqlite:":
        key = URI_VARIABLE if os.environ.get(URI_VARIABLE) else "tracking.uri"
        raise BadInput(f"{key}: {uri!r} names no file; allowed: sqlite:////absolute/path.db, http://…, postgresql://…")
    if lacks_password(uri):
        raise BadInput(f"tracking.uri: {uri}: put the password in the place of {HIDDEN}, or set {URI_VARIABLE}")
    learn(uri)
    return uri


def default_uri(root: Path) -> str:
    """The SQLite file under a tracking root. Raises BadInput as :func:`sqlite_uri` does."""
    return sqlite_uri(mlflow_database(root))


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite file. Raises BadInput where the address would not mean the path."""
    if found := set("%?") & set(str(path)):
        raise BadInput(f"tracking.root: {str(path.parent)!r} has a {found.pop()!r}, which SQLite's address cannot hold")
    return f"sqlite:///{path}"


def has_store(config: ExperimentConfig) -> bool:
    """Whether the store can have anything in it. It is not asked, as that would make an SQLite store."""
    elsewhere = os.environ.get(URI_VARIABLE) or config.tracking.uri
    return bool(elsewhere or mlflow_database(tracking_root(config)).exists())


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """A block in which the errors of a store become this program's.

    Raises:
        StoreAway: it may come back by itself (locked, no connection).
        DiskFull: its disk or this one.
        InfrastructureFailure: anything else.
    """
    try:
        yield
    except ImportError as error:  # the driver of a database
        text = without_passwords(f"tracking store {uri}: its driver is not installed: {error}")
        raise InfrastructureFailure(text) from error
    except (MlflowException, SQLAlchemyError, OSError, sqlite3.Error) as error:
        text = without_passwords(f"tracking store {uri}: {_in_short(error)}")
        code = getattr(error, "error_code", None)
        lasting = code not in _TEMPORARY if code else isinstance(error, FileNotFoundError)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "database or disk is full" in text:
            raise DiskFull(text) from error
        raise (InfrastructureFailure if lasting else StoreAway)(text) from error


def _in_short(error: BaseException) -> str:
    """What a person needs to know of an error, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        for kind, words in _NO_ANSWER.items():
            if isinstance(cause, kind):
                return words
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:300]


def create_database(database: Path, artifacts: str) -> None:
    """Makes an SQLite store where there is none; whole or not at all.

    MLflow creates its tables one after another in place. Another process that opens the file meanwhile (a second
    experiment, the UI) makes both fail. So the file is made under another name, under a lock, and then moved.
    """
    if database.exists():  # also on a disk that can only be read
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with (database.parent / f".{database.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists():
            return
        unfinished = database.with_name(f".{database.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        with _without_waiting_for_the_disk():
            store = SqlAlchemyStore(f"sqlite:///{unfinished}", artifacts)
            store.engine.dispose()
        with contextlib.closing(sqlite3.connect(unfinished)) as connection:
            connection.execute("PRAGMA journal_mode=wal")  # readers and writers do not wait for each other
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


@contextlib.contextmanager
def _without_waiting_for_the_disk() -> Iterator[None]:
    """While this lasts, new SQLite connections do not wait until what they write is on the disk.

    MLflow makes its tables in some seventy steps, and would wait several times in each: ten seconds on a busy disk.
    """

    def do_not_wait(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=off")

    event.listen(Engine, "connect", do_not_wait)
    try:
        yield
    finally:
        event.remove(Engine, "connect", do_not_wait)


class TrainerRun:
    """The run of an attempt, as its trainer sees it: it logs artifacts to the run, and the orchestrator ends it."""

    def __init__(self, uri: str, run_id: str) -> None:
        prepare_mlflow()
        self.run_id = run_id
        self.client = MlflowClient(tracking_uri=uri)

    def log_bytes(self, content: bytes, path: str) -> None:
        """Logs an artifact, such as a figure."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            file.write_bytes(content)
            self.client.log_artifact(self.run_id, str(file), str(Path(path).parent))

    def set_tag(self, name: str, text: str) -> None:
        """Sets a tag, by its name in :mod:`pipeline.tracking.tags`."""
        self.client.set_tag(self.run_id, name, text)


def send_reports(client: MlflowClient, run_id: str, reports: Sequence[Report]) -> None:
    """Logs reports in synchronous batches. The same report twice is still one point of each curve."""
    metrics = [Metric(key, value, each.time, each.step) for each in reports for key, value in each.metrics.items()]
    for first in range(0, len(metrics), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=metrics[first : first + _METRICS_AT_ONCE])
