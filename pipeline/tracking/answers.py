"""What a store can answer, and what follows: the one place that tells what passes by itself from what lasts.

away      no connection, no answer, locked, busy, a page of a web server while MLflow restarts: it may pass (StoreAway)
full      no room on this disk or on the store's (DiskFull)
refused   no permission, too large, a path that cannot be written, another schema, an address without a meaning: it
          lasts until a person changes something (InfrastructureFailure)
"""

from __future__ import annotations

import errno
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

import requests
from alembic.util import CommandError
from mlflow.exceptions import InvalidUrlException, MlflowException, RestException
from mlflow.version import VERSION
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from pipeline.errors import DiskFull, InfrastructureFailure, StoreAway, StoreRestarts
from pipeline.processes.environment import is_excluded
from pipeline.secrets import without_passwords

ANSWERS = (MlflowException, SQLAlchemyError, OSError, sqlite3.Error, ImportError, CommandError, json.JSONDecodeError)
"""What a call to a store may raise."""
_LONGEST = 300
_WEB = ("http", "https")
_PASSING_CODES = (
    "INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED",
    "ABORTED", "CANCELLED", "RESOURCE_CONFLICT",
)  # fmt: skip
_NO_WAY = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
_LASTING_SQLITE = ("SQLITE_ERROR", "SQLITE_READONLY", "SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_PERM", "SQLITE_AUTH")
_LASTING_STATES = ("0A", "22", "23", "28", "3D", "3F", "42")
"""Classes of SQLSTATE: authorisation, a database or table that is not there, values that do not fit."""
_LASTING_WORDS = re.compile(
    r"authentication failed|no password supplied|access denied|no pg_hba\.conf entry|permission denied"
    r"|(database|role|user) .* does not exist|unknown database|no such (table|column)|readonly database"
    r"|file is not a database|could not parse|invalid (dsn|connection option|port)|UndefinedTable|UndefinedColumn",
    re.IGNORECASE,
)
"""What a database says, also through a server, where it gives no code."""
_SCHEMA = re.compile(r"found version (?P<found>\w+)|revision identified by '(?P<unknown>\w+)'")
_DELETED = re.compile(
    r"[Tt]he (?P<kind>run|experiment) (?P<id>\w+) must be in (?:the )?'?active'? .*deleted", re.DOTALL
)
_STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses|(\d{3}) (?:Client|Server) Error")
_BY_STATUS = {
    401: "it asks for a user (401): MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    403: "it forbids this (403)",
    404: "there is no MLflow at this address (404)",
    407: "a proxy asks for a user (407)",
    413: "a web server before it takes no request of this size (413; nginx: client_max_body_size)",
    429: "it is busy (429)",
}
_RESTARTING_STATUSES = (502, 503, 504)
_LASTING_STATUSES = (400, 401, 403, 405, 407, 411, 413, 414, 415, 422, 431, 501, 505)


@dataclass(frozen=True)
class Answer:
    """What an error of a store means."""

    failure: type[InfrastructureFailure]
    """StoreAway, DiskFull, or InfrastructureFailure itself: refused."""
    text: str
    """The cause and, where it lasts, what helps, in one line."""
    size: bool = False
    """It refuses the size of what was sent, and may take less."""


def understood(error: BaseException, uri: str) -> Answer:
    """What an error means that a call to the store of this address has raised."""
    if isinstance(error, ImportError):
        return Answer(InfrastructureFailure, f"its driver is not installed: {error}")
    chain = list(_chain(error))
    for reader in (_full, _http, _address, _connection, _schema, _deleted, _database, _file, _value, _code):
        for each in chain:
            if (answer := reader(each, uri)) is not None:
                return answer
    return Answer(StoreAway, _in_short(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and what a driver raised beneath."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            yield cause.orig
        cause = cause.__cause__ or cause.__context__


def _full(error: BaseException, _uri: str) -> Answer | None:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _state(error) == "53100"
    if full or "database or disk is full" in str(error):
        return Answer(DiskFull, _in_short(error))
    return None


def _http(error: BaseException, uri: str) -> Answer | None:
    """An answer whose status says more than its content: a page of a web server, not MLflow's JSON."""
    if isinstance(error, RestException):
        return None
    response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        status = response.status_code
    elif isinstance(error, MlflowException | requests.exceptions.RetryError) and (found := _STATUS.search(str(error))):
        status = int(next(filter(None, found.groups())))
    else:
        return None
    text = _BY_STATUS.get(status, f"it answers {status}")
    passing = StoreRestarts if status in _RESTARTING_STATUSES else StoreAway
    failure = InfrastructureFailure if status in _LASTING_STATUSES else passing
    return Answer(failure, text + through_proxy(uri), size=status == 413)


def _address(error: BaseException, uri: str) -> Answer | None:
    """An address that means nothing, in form."""
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        return Answer(InfrastructureFailure, f"its proxy is no address{through_proxy(uri)}")
    invalid = (
        InvalidUrlException,
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    )
    return Answer(InfrastructureFailure, f"not an address: {_in_short(error)}") if isinstance(error, invalid) else None


def _connection(error: BaseException, uri: str) -> Answer | None:
    """No connection, or no answer of MLflow's on it."""
    said = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in said:
            text = "its certificate is not trusted (REQUESTS_CA_BUNDLE names a file of authorities)"
            return Answer(InfrastructureFailure, text + through_proxy(uri))
        if "WRONG_VERSION_NUMBER" in said:
            return Answer(InfrastructureFailure, "it does not speak TLS: http:// instead of https://?")
    if isinstance(error, requests.exceptions.ProxyError):
        if "407" in said:
            return Answer(InfrastructureFailure, _BY_STATUS[407] + through_proxy(uri))
        return Answer(StoreAway, "no connection to the proxy" + through_proxy(uri))
    if isinstance(error, requests.Timeout):
        return Answer(StoreAway, "no answer" + through_proxy(uri))
    if isinstance(error, requests.exceptions.InvalidJSONError | json.JSONDecodeError) or "not in a valid JSON" in said:
        return Answer(StoreAway, "it answers with a page that is not MLflow's" + through_proxy(uri))
    if isinstance(error, requests.ConnectionError):
        unknown = "Failed to resolve" in said or "Name or service not known" in said
        what = f": the name {urlsplit(uri).hostname!r} is not known" if unknown else ""
        return Answer(StoreAway, f"no connection{what}{through_proxy(uri)}")
    return None


def _schema(error: BaseException, _uri: str) -> Answer | None:
    """A database of another version of MLflow."""
    if isinstance(error, MlflowException | CommandError) and (found := _SCHEMA.search(str(error))):
        text = (
            f"its tables are another MLflow's (schema {found['found'] or found['unknown']}, this is MLflow {VERSION}); "
            "install that version, or, if it is older: back the database up, then `mlflow db upgrade ADDRESS`"
        )
        return Answer(InfrastructureFailure, text)
    return None


def _database(error: BaseException, _uri: str) -> Answer | None:
    if (name := getattr(error, "sqlite_errorname", None)) is not None:
        lasting = name.startswith(_LASTING_SQLITE)
    elif state := _state(error):
        lasting = state.startswith(_LASTING_STATES)
    elif isinstance(error, DBAPIError | MlflowException | sqlite3.Error):
        lasting = _LASTING_WORDS.search(str(error)) is not None
    else:
        return None
    return Answer(InfrastructureFailure, _in_short(error)) if lasting else None


def _state(error: BaseException) -> str | None:
    """The SQLSTATE that a database gives."""
    found = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    return found if isinstance(found, str) and not isinstance(error, MlflowException) else None


def _file(error: BaseException, uri: str) -> Answer | None:
    """A path that cannot be read or written."""
    if not isinstance(error, OSError) or isinstance(error, requests.RequestException) or error.errno not in _NO_WAY:
        return None
    text = " ".join(f"{error.filename}: {error.strerror}".split())[:_LONGEST] if error.filename else _in_short(error)
    if urlsplit(uri).scheme in _WEB:
        text += " on this machine (artifacts through the server itself: mlflow server --artifacts-destination)"
    return Answer(InfrastructureFailure, text)


def _deleted(error: BaseException, _uri: str) -> Answer | None:
    """A run or an experiment that a person has deleted in the meantime."""
    if isinstance(error, MlflowException) and (found := _DELETED.search(str(error))):
        return Answer(InfrastructureFailure, deleted(f"{found['kind']} {found['id']}"))
    return None


def deleted(what: str) -> str:
    """What is told of a run or an experiment that is deleted while it is needed."""
    return f"{what} was deleted in MLflow; whoever restores it there can go on with it"


def _value(error: BaseException, _uri: str) -> Answer | None:
    """A value that the store's driver cannot send."""
    cause = error.__cause__
    sent = isinstance(error, MlflowException) and isinstance(cause, ValueError | TypeError)
    return Answer(InfrastructureFailure, _in_short(error)) if sent else None


def _code(error: BaseException, _uri: str) -> Answer | None:
    """What MLflow's own code says."""
    if not isinstance(error, MlflowException):
        return None
    passing = error.error_code in _PASSING_CODES
    return Answer(StoreAway if passing else InfrastructureFailure, _in_short(error))


def _in_short(error: BaseException) -> str:
    """What the error says, in one line: of a database's, without its statement and where it is explained."""
    text = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    text = re.split(r"\[SQL:|\(Background on this error", text)[0]
    return " ".join(text.split())[:_LONGEST] or type(error).__name__


def through_proxy(uri: str) -> str:
    """The proxy that stands before an address, with its variable and the way round it; empty: none does."""
    if urlsplit(uri).scheme not in _WEB:
        return ""
    proxy = requests.utils.select_proxy(uri, requests.utils.get_environ_proxies(uri))
    return f"; asked through {_named(proxy, uri)}; NO_PROXY={urlsplit(uri).hostname} goes without it" if proxy else ""


def past_proxy(uri: str) -> str:
    """The proxy that this program passes over, as the address is on this machine; empty: it passes over none."""
    where = urlsplit(uri)
    if where.scheme not in _WEB or not is_excluded(where.hostname or ""):
        return ""
    proxy = requests.utils.select_proxy(uri, getproxies())
    return f"{without_passwords(uri)} is on this machine: asked without {_named(proxy, uri)}" if proxy else ""


def _named(proxy: str, uri: str) -> str:
    scheme = urlsplit(uri).scheme
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if os.environ.get(name) == proxy), "system settings")
    return f"the proxy {without_passwords(proxy)} ({variable})"
