"""The address of a store, as a person writes it: what means nothing is refused before anything is asked."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

import requests
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from pipeline.errors import BadInput
from pipeline.secrets import without_passwords

_ALLOWED = "http://HOST:PORT, https://…, sqlite:////absolute/path.db, postgresql://USER:PASSWORD@HOST/DATABASE"
_DATABASES = ("postgresql", "mysql", "mssql")
_DRIVERS = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}
"""Packages whose name is not that of their module."""
_HOST = re.compile(r"(localhost|[\w-]+(\.[\w-]+)+|\[[0-9a-fA-F:]+\])(:\d+)?(/.*)?|[\w.-]+:\d+(/.*)?")
"""What was meant to begin with http://."""
_Refusal = Callable[[str], BadInput]


def usable(uri: str, key: str) -> str:
    """The address without blanks around it, an SQLite file's path absolute.

    Args:
        key: the variable or the key of the configuration that has it.

    Raises:
        BadInput: it is not the address of a store that MLflow can open here.
    """
    given, uri = without_passwords(uri), uri.strip()

    def refused(problem: str) -> BadInput:
        return BadInput(f"{key}: {given!r} {problem}; allowed: {_ALLOWED}")

    scheme = uri.partition("://")[0] if "://" in uri else ""
    name = scheme.partition("+")[0].lower()
    if uri in ("databricks", "databricks-uc", "uc") or name in ("databricks", "databricks-uc", "uc"):
        if importlib.util.find_spec("databricks") is None:
            raise refused("needs the package databricks-sdk, which is not installed")
        return uri
    if name in ("", "file") or uri.startswith("file:"):
        return _folder(uri, refused)
    if name in ("http", "https"):
        return _web(uri, refused)
    if name == "sqlite" or name in _DATABASES:
        return _database(uri, name, refused)
    if name in {each.name for each in entry_points(group="mlflow.tracking_store")}:
        return uri
    raise refused(f"begins with {scheme!r}, which no store of MLflow has")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store; None: it is another store."""
    return Path(make_url(uri).database or "") if re.match(r"sqlite(\+\w+)?:", uri) else None


def _folder(uri: str, refused: _Refusal) -> str:
    """A folder of files, which MLflow reads only where it is told to; mostly it was meant to be something else."""
    if _HOST.fullmatch(uri):
        raise refused(f"has no scheme; did you mean {f'http://{uri}'!r}?")
    if uri.startswith("sqlite:"):
        raise refused("names no file")
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return uri
    raise refused("is a folder, and MLflow keeps no runs in folders any more (`mlflow migrate-filestore`)")


def _web(uri: str, refused: _Refusal) -> str:
    try:
        requests.Request("GET", uri).prepare()
        (urlsplit(uri).hostname or "").encode("idna")
    except (requests.RequestException, ValueError) as error:  # a name or a port that cannot be
        raise refused(f"is no address: {error}") from error
    return uri


def _database(uri: str, name: str, refused: _Refusal) -> str:
    try:
        url = make_url(uri)
        dialect = url.get_dialect()
    except NoSuchModuleError as error:
        raise refused(f"names a driver that SQLAlchemy does not know, {uri.partition(':')[0]!r}") from error
    except (ArgumentError, ValueError) as error:
        raise refused("is no address: host, port or database cannot be read") from error
    try:
        dialect.import_dbapi()
    except ImportError as error:
        module = error.name or str(error)
        raise refused(f"needs a driver that is not installed: pip install {_DRIVERS.get(module, module)}") from error
    if name != "sqlite":
        return uri
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise refused("names no file")
    path = Path(url.database).absolute()
    if path.is_dir():
        raise refused("is a folder, not a file")
    above = next(each for each in path.parents if each.exists())
    if not above.is_dir():
        raise refused(f"cannot be: {above} is a file")
    return uri if url.database == str(path) else uri.replace(url.database, str(path), 1)
