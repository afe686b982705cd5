"""The way to an MLflow store: where it is, how it is made, and the first connection."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import Dialect, Engine, NullPool, create_engine, event
from sqlalchemy.engine import make_url

from pipeline.attempt.file import URI_VARIABLE
from pipeline.attempt.folder import mlflow_database
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.secrets import HIDDEN, lacks_password, learn, without_passwords
from pipeline.tracking.address import sqlite_file, usable
from pipeline.tracking.answers import ANSWERS, understood
from pipeline.tracking.environment import prepare_mlflow

_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 30
"""For the first connection to a store, and for its first answer. A wrong address is told within seconds."""
_COPY = "mlflow.db"
_WITH_CONNECT_TIMEOUT = ("psycopg2", "psycopg", "mysqldb", "pymysql")


def tracking_root(config: ExperimentConfig) -> Path:
    """The folder of everything that an experiment writes, absolute, with `~` for the home folder. Raises BadInput."""
    try:
        root = Path(config.tracking.root).expanduser().resolve()
        there = next((each for each in (root, *root.parents) if each.exists()), root)
    except (RuntimeError, ValueError) as error:  # `~name` of a user that does not exist; a NUL
        raise BadInput(f"tracking.root: {config.tracking.root!r}: {error}") from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            return root
        raise BadInput(f"tracking.root: {config.tracking.root[:100]!r}: {error.strerror}") from error
    if there.exists() and not there.is_dir():
        raise BadInput(f"tracking.root: {there} is a file; it must be a folder, or one that can be made")
    return root


def tracking_uri(config: ExperimentConfig) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.uri`, else the SQLite file under `tracking.root`. Raises BadInput."""
    for key, uri in ((URI_VARIABLE, os.environ.get(URI_VARIABLE)), ("tracking.uri", config.tracking.uri)):
        if uri and uri.strip():
            if lacks_password(uri):
                raise BadInput(f"{key}: {uri}: put the password in the place of {HIDDEN}, or set {URI_VARIABLE}")
            learn(uri)
            return usable(uri, key)
    return default_uri(tracking_root(config))


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
    file = sqlite_file(tracking_uri(config))
    return file is None or file.exists()


def snapshot(uri: str, folder: Path) -> str:
    """The address of a copy of an SQLite store, in this folder, where this user may only read the original.

    SQLite needs to write beside a file that it reads. What has not been moved into the file yet (`-wal`) is copied too.
    """
    file = sqlite_file(uri)
    if file is None or not file.exists() or all(os.access(each, os.W_OK) for each in (file, file.parent)):
        return uri
    with reachable(uri):
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{file}{suffix}", folder / f"{_COPY}{suffix}")
    return f"sqlite:///{folder / _COPY}"


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """A block in which the errors of a store become this program's.

    Raises:
        StoreAway: it may come back by itself (locked, no connection).
        DiskFull: its disk or this one.
        InfrastructureFailure: it refuses, and will until a person changes something.
    """
    try:
        yield
    except ANSWERS as error:
        answer = understood(error, uri)
        raise answer.failure(without_passwords(f"tracking store {uri}: {answer.text}")) from error


def try_connection(uri: str) -> None:
    """Connects once, briefly: MLflow itself waits minutes for a database, and half a minute for any server."""
    if uri.startswith(("http://", "https://")):
        timeout = (_CONNECT_SECONDS, _ANSWER_SECONDS)
        http_request(get_default_host_creds(uri), "/health", "GET", timeout=timeout, raise_on_status=False)
    elif uri.startswith(("postgresql", "mysql")):
        seconds = {"connect_timeout": _CONNECT_SECONDS}
        knows = make_url(uri).get_driver_name() in _WITH_CONNECT_TIMEOUT
        engine = create_engine(uri, poolclass=NullPool, connect_args=seconds if knows else {})
        with engine.connect():
            pass


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


def make_none_in_its_place(database: Path) -> None:
    """From now on, a connection to this SQLite file fails where the file is missing; SQLite would make an empty one."""
    _OPENED.add(str(database))
    if not event.contains(Engine, "do_connect", _connect_to_what_exists):
        event.listen(Engine, "do_connect", _connect_to_what_exists)


_OPENED: set[str] = set()


def _connect_to_what_exists(
    dialect: Dialect, _record: object, words: list[Any], options: dict[str, Any]
) -> sqlite3.Connection | None:
    if dialect.name != "sqlite" or not words or words[0] not in _OPENED:
        return None
    connection: sqlite3.Connection = sqlite3.connect(f"file:{quote(words[0])}?mode=rw", uri=True, **options)
    return connection


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
