"""A tracking root that has been moved: the absolute paths in MLflow's SQLite file follow it.

MLflow stores where the artifacts of each experiment and run lie, as absolute paths. When the root has another path (it
was moved, its project was renamed, its volume is mounted elsewhere), new artifacts would be written to the old path and
old ones would not be found.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from pathlib import Path
from urllib.parse import unquote

from pipeline.attempt.folder import experiment_locks, mlflow_artifacts, mlflow_database
from pipeline.tracking import tags

_PLACES = (
    ("experiments", "artifact_location", ""),
    ("runs", "artifact_uri", ""),
    ("logged_models", "artifact_location", ""),
    ("model_versions", "source", ""),
    ("model_versions", "storage_location", ""),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
    ("tags", "value", f"key IN ('{tags.POLICY}', '{tags.STUDY_STORAGE}')"),
)
"""Table, column, and which of its rows."""


def is_own(database: Path, root: Path) -> bool:
    """Whether an SQLite store is the file under the root."""
    return database.resolve() == mlflow_database(root).resolve()


def follow(database: Path, root: Path) -> bool:
    """Has the paths in an SQLite store lead to its root's present place. Returns whether any have been changed.

    Paths of another folder stay as they are, and so do those of a root that still is where it was, such as one that is
    mounted in two places. While an experiment is being run, nothing is changed. A store that cannot be written stays as
    it is.
    """
    if not database.exists():
        return False
    with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(sqlite3.connect(database)) as connection:
        here = mlflow_artifacts(root).as_uri()
        locations = {said for (said,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")}
        if all(_under(str(said), here) for said in locations):
            return False
        left = [each for each in _former_roots(connection) if each != root and _has_left(each, database, root)]
        if not left or any(map(_is_held, experiment_locks(root))):
            return False
        connection.execute("BEGIN IMMEDIATE")
        changed = sum(_replace(connection, each, root) for each in left)
        connection.commit()
        return changed > 0
    return False


def _under(location: str, folder: str) -> bool:
    return location == folder or location.startswith(f"{folder}/")


def _former_roots(connection: sqlite3.Connection) -> list[Path]:
    """Where the root has been: the experiment that the store was made with says it, and so does each owner."""
    found: dict[Path, None] = {}
    ending = f"/{mlflow_artifacts(Path()).name}/0"
    for (said,) in connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0"):
        if str(said).startswith("file:///") and str(said).endswith(ending):
            found[Path(unquote(said.removesuffix(ending).removeprefix("file://")))] = None
    for (said,) in connection.execute("SELECT DISTINCT value FROM tags WHERE key = ?", (tags.OWNER,)):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found[Path(json.loads(said)["root"])] = None
    return list(found)


def _has_left(former: Path, database: Path, root: Path) -> bool:
    """Whether the root is no longer there. A store of another place may serve several roots, of which one remains."""
    try:
        if not is_own(database, root):
            return not former.exists()
        there = mlflow_database(former)
        return not there.exists() or not there.samefile(database)
    except OSError:
        return False


def _is_held(lock: Path) -> bool:
    with contextlib.suppress(OSError), lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _replace(connection: sqlite3.Connection, former: Path, root: Path) -> int:
    """Replaces the beginning of every path under the former root. Returns how many there were."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    forms = [(former.as_uri(), root.as_uri()), (str(former), str(root)), (f"sqlite:///{former}", f"sqlite:///{root}")]
    changed = 0
    for table, column, rows in _PLACES:
        if table not in tables or column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            continue
        for old, new in forms:
            where = f"substr({column}, 1, ?) = ?" + (f" AND {rows}" if rows else "")
            statement = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {where}"
            changed += connection.execute(statement, (new, len(old) + 1, len(old) + 1, f"{old}/")).rowcount
    return changed
