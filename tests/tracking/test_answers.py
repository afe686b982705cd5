"""What passes and what lasts, of all that a store can answer."""

from __future__ import annotations

import errno
import http.server
import json
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from alembic.util import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError

from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, DiskFull, InfrastructureFailure, StoreAway, StoreRestarts
from pipeline.processes import environment
from pipeline.tracking import store as store_module
from pipeline.tracking.access import reachable, tracking_uri
from pipeline.tracking.answers import past_proxy, understood
from pipeline.tracking.store import Store

URI = "http://127.0.0.1:5000"
AWAY, REFUSED, FULL = StoreAway, InfrastructureFailure, DiskFull


def sqlite_error(name: str, words: str) -> OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorname = name  # type: ignore[misc]
    return OperationalError("SELECT 1", {}, error)


def postgres_error(words: str, state: str | None = None) -> OperationalError:
    error = Exception(words)
    error.pgcode = state  # type: ignore[attr-defined]
    return OperationalError("SELECT 1", {}, error)


def within_mlflow(cause: Exception, code: str = "TEMPORARILY_UNAVAILABLE") -> Exception:
    try:
        raise RestException({"error_code": code, "message": str(cause)}) from cause
    except RestException as error:
        return error


def of_status(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(str(status), response=response)


@pytest.mark.parametrize(
    ("error", "failure", "words"),
    [
        (requests.ConnectionError("refused"), AWAY, "no connection"),
        (requests.ConnectionError("Failed to resolve 'x'"), AWAY, "the name '127.0.0.1' is not known"),
        (requests.ReadTimeout("slow"), AWAY, "no answer"),
        (requests.exceptions.RetryError("too many 503 error responses"), AWAY, "it answers 503"),
        (requests.exceptions.RetryError("too many 429 error responses"), AWAY, "busy"),
        (requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]"), REFUSED, "certificate is not trusted"),
        (requests.exceptions.SSLError("EOF occurred"), AWAY, "no connection"),
        (ssl.SSLError("[SSL: WRONG_VERSION_NUMBER]"), AWAY, "WRONG_VERSION"),
        (json.JSONDecodeError("Expecting value", "<html>", 0), AWAY, "not MLflow's"),
        *((of_status(status), REFUSED, str(status)) for status in (401, 403, 407, 413)),
        *((of_status(status), AWAY, str(status)) for status in (404, 408, 429, 500, 502, 503, 504)),
        (MlflowException("API request to x failed with error code 404 != 200. Response body: '<html>'"), AWAY, "404"),
        (MlflowException("API request to x failed with error code 403 != 200. Response body: 'no'"), REFUSED, "403"),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}), REFUSED, "no run"),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"}), REFUSED, "not yours"),
        (RestException({"error_code": "INTERNAL_ERROR", "message": "odd"}), AWAY, "odd"),
        (within_mlflow(sqlite_error("SQLITE_BUSY", "database is locked")), AWAY, "locked"),
        (within_mlflow(sqlite_error("SQLITE_READONLY", "attempt to write a readonly database")), REFUSED, "readonly"),
        (within_mlflow(sqlite_error("SQLITE_ERROR", "no such table: runs")), REFUSED, "no such table"),
        (within_mlflow(sqlite_error("SQLITE_IOERR", "disk I/O error")), AWAY, "I/O"),
        (sqlite_error("SQLITE_FULL", "database or disk is full"), FULL, "full"),
        (sqlite3.DatabaseError("file is not a database"), REFUSED, "not a database"),
        (postgres_error("connection refused"), AWAY, "refused"),
        (postgres_error('FATAL:  password authentication failed for user "a"'), REFUSED, "password"),
        (postgres_error('FATAL:  database "x" does not exist'), REFUSED, "does not exist"),
        (postgres_error("the database system is starting up"), AWAY, "starting up"),
        (postgres_error("too many clients", "53300"), AWAY, "too many"),
        (postgres_error("permission denied for table runs", "42501"), REFUSED, "permission"),
        (postgres_error("could not extend file", "53100"), FULL, "extend"),
        (MlflowException("Detected out-of-date database schema (found version a1, but expected b2)"), REFUSED, "a1"),
        (CommandError("Can't locate revision identified by 'c3'"), REFUSED, "mlflow db upgrade"),
        (PermissionError(errno.EACCES, "Permission denied", "/proc/served"), REFUSED, "/proc/served: Permission"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"), REFUSED, "/proc/x"),
        (OSError(errno.EROFS, "Read-only file system", "/ro"), REFUSED, "/ro: Read-only"),
        (OSError(errno.ESTALE, "Stale file handle", "/nfs"), AWAY, "Stale"),
        (OSError(errno.ENOSPC, "No space left on device"), FULL, "No space"),
        (within_mlflow(ValueError("NUL (0x00) characters"), "INTERNAL_ERROR"), REFUSED, "NUL"),
    ],
)  # fmt: skip
def test_what_it_means(error: Exception, failure: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    answer = understood(error, URI)
    kind = StoreAway if issubclass(answer.failure, StoreAway) else answer.failure
    assert kind is failure and words in answer.text and "\n" not in answer.text
    assert answer.size is (getattr(getattr(error, "response", None), "status_code", 0) == 413)


@contextmanager
def web_server(status: int, body: str) -> Iterator[str]:
    """A web server that answers the same to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "passes", "words"),
    [
        (200, "<html>we are back soon</html>", True, "not MLflow's"),
        (404, "404 page not found", True, "404"),
        (502, "<html>Bad Gateway</html>", True, "502"),
        (500, '{"error_code": "INTERNAL_ERROR", "message": "x"}', True, "500"),
        (403, "<html>no</html>", False, "forbids"),
        (401, "You are not authenticated", False, "MLFLOW_TRACKING_USERNAME"),
        (413, "<html>too large</html>", False, "size"),
        (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}', False, "no such run"),
    ],
)  # fmt: skip
def test_over_http(status: int, body: str, passes: bool, words: str) -> None:
    with web_server(status, body) as uri:
        with pytest.raises(InfrastructureFailure, match=words) as failed, reachable(uri):
            MlflowClient(uri).get_run("a" * 32)
        assert isinstance(failed.value, StoreAway) is passes


def test_a_proxy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(StoreAway) as away:
        Store("http://tracking.example:5000", tmp_path)
    said = str(away.value)
    assert "the proxy http://me:***@127.0.0.1:9 (http_proxy); NO_PROXY=tracking.example" in said
    assert "secret" not in said


def test_a_proxy_that_is_passed_over_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_excluded", set())
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    environment.reach_this_machine()
    said = past_proxy("http://127.0.0.1:5000")
    assert (
        said
        == "http://127.0.0.1:5000 is on this machine: asked without the proxy http://me:***@127.0.0.1:9 (http_proxy)"
    )
    assert not past_proxy("http://tracking.example:5000") and not past_proxy("sqlite:////tmp/x.db")
    assert not past_proxy("https://127.0.0.1:5000")  # for which no proxy is set


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("localhost:5000", "did you mean 'http://localhost:5000'?"),
        ("127.0.0.1:5999/mlflow", "did you mean"),
        ("tracking.example", "did you mean"),
        ("[::1]:5000", "did you mean"),
        ("/tmp/plain", "is a folder"),
        ("./mlruns", "is a folder"),
        ("file:///tmp/fs", "is a folder"),
        ("htp://127.0.0.1:5000", "begins with 'htp'"),
        ("http://", "is no address"),
        ("http://host:99999999", "is no address"),
        ("http://a..b:5000", "is no address"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////tmp", "is a folder"),
        ("sqlite:////etc/hostname/x.db", "is a file"),
        ("sqlite+nodriver:////tmp/x.db", "does not know"),
        ("postgresql://u:secret@h:port/d", "is no address"),
        ("mysql://u:secret@127.0.0.1/x", "needs a driver"),
        ("mongodb://h/d", "begins with 'mongodb'"),
    ],
)
def test_an_address_without_a_meaning_is_refused(uri: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(BadInput) as refused:
        tracking_uri(ExperimentConfig())
    said = str(refused.value)
    assert said.startswith("MLFLOW_TRACKING_URI: ") and problem in said and "\n" not in said and "secret" not in said


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        (" http://127.0.0.1:1\n", "http://127.0.0.1:1"),
        ("https://user:pw@host/mlflow", "https://user:pw@host/mlflow"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite:///x.db?timeout=30", f"sqlite:///{Path.cwd()}/x.db?timeout=30"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
    ],
)
def test_an_address_that_can_be_used(uri: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri(ExperimentConfig()) == meant


def test_a_store_that_restarts_is_waited_for_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A web server answers in its place. One that is not there at all is told at once."""
    answers: list[Exception | None] = [StoreRestarts("it answers 503"), StoreRestarts("it answers 503"), None]
    told: list[str] = []

    def opened(uri: str, root: Path) -> str:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return uri

    monkeypatch.setattr(store_module, "Store", opened)
    monkeypatch.setattr(store_module, "_EVERY_SECONDS", 0.0)
    config = ExperimentConfig().with_values({"tracking.root": str(tmp_path), "tracking.uri": "http://127.0.0.1:9"})
    assert store_module.open_to_write(config, told.append) == "http://127.0.0.1:9"
    assert len(told) == 1 and "waiting for it" in told[0]
    answers[:] = [StoreAway("no connection")]
    with pytest.raises(StoreAway, match="no connection"):
        store_module.open_to_write(config, told.append)
