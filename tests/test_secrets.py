"""Texts without passwords."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import secrets
from pipeline.secrets import (
    hidden_in,
    hide_in_file,
    lacks_password,
    learn,
    learn_environment,
    restored,
    without_passwords,
)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """What a test teaches is forgotten after it."""
    before = dict(secrets._known)
    secrets._known.clear()
    yield
    secrets._known.clear()
    secrets._known.update(before)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://alice:pw@127.0.0.1:5611/a", "http://alice:***@127.0.0.1:5611/a"),
        ("postgresql+psycopg2://alice:p%40ss@h/x", "postgresql+psycopg2://alice:***@h/x"),
        ("redis://:pw@h", "redis://:***@h"),
        ("http://u:a/b@c?d@host/x", "http://u:***@host/x"),  # not encoded, though it should be
        ("https://ghp_abcdefghij0123456789@github.com/x", "https://***@github.com/x"),
        ("https://h/x?a=1&access_token=abc#y", "https://h/x?a=1&access_token=***#y"),
        ("postgresql://h/x?user=a&password=b&sslmode=off", "postgresql://h/x?user=a&password=***&sslmode=off"),
        ("host=h password=abc dbname=d", "host=h password=*** dbname=d"),
        ("connect(host='h', password='a b')", "connect(host='h', password=***)"),
        ("{'user': 'x', 'password': 'abc'}", "{'user': 'x', 'password': '***'}"),
        ('{"PGPASSWORD": "abc"}', '{"PGPASSWORD": "***"}'),
        ("Authorization: Basic YWxpY2U6czNjcjN0", "Authorization: Basic ***"),
        ("['curl', '-u', 'bob:pw', 'http://x']", "['curl', '-u', 'bob:***', 'http://x']"),
        ("(url: http://a:b@h) and http://c:d@h", "(url: http://a:***@h) and http://c:***@h"),
    ],
)
def test_passwords_by_what_stands_around_them(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert without_passwords(shown) == shown  # once more changes nothing


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////a/b:c@d.db",
        "http://127.0.0.1:5000/#/experiments/1",
        "https://registry:8080/@scope/x",
        "mail a@b.c at 10:30",
        'password authentication failed for user "x"',
        "basic authentication is required",
        "runs:/abc/player",
        "loss=0.5 token_count=3 passes=4",
    ],
)
def test_what_holds_none_is_as_it_was(text: str) -> None:
    assert without_passwords(text) == text


@pytest.mark.parametrize("password", ["s3cr3t-w0rd", "p%40ss%2Fw0rd", "it's<odd>1", "longerword"])
def test_a_password_that_is_known_is_hidden_wherever_it_stands(password: str) -> None:
    from urllib.parse import quote, unquote

    learn(f"http://alice:{password}@127.0.0.1:5611")
    plain = unquote(password)
    header = base64.b64encode(f"alice:{plain}".encode()).decode()
    for form in (password, plain, quote(plain, safe=""), header):
        assert without_passwords(f"it said {form}!") == "it said ***!"


@pytest.mark.parametrize("uri", ["http://mlflow:mlflow@h", "postgresql://a:secret@h/secret", "http://a:pw@h"])
def test_a_password_that_is_a_word_of_its_own_leaves_other_texts_alone(uri: str) -> None:
    learn(uri)
    assert without_passwords("mlflow has a secret pw") == "mlflow has a secret pw"
    assert ":***@h" in without_passwords(uri)


def test_passwords_of_the_environment() -> None:
    environment = {
        "MLFLOW_TRACKING_PASSWORD": "monday-1",
        "MLFLOW_TRACKING_TOKEN": "tuesday-2",
        "https_proxy": "http://bob:wednesday-3@proxy:3128",
        "AWS_SECRET_ACCESS_KEY": "thursday-4",
        "PATH": "/usr/bin:friday-5",
    }
    learn_environment(environment)
    said = without_passwords("monday-1 tuesday-2 wednesday-3 thursday-4 friday-5")
    assert said == "*** *** *** *** friday-5"


def test_a_private_copy_restores_what_was_stored_without() -> None:
    private = {"a": {"uri": "http://u:pw@h", "n": 1}, "words": ["x", "http://v:pw@h"], "s": "***"}
    stored = hidden_in(private)
    assert stored == {"a": {"uri": "http://u:***@h", "n": 1}, "words": ["x", "http://v:***@h"], "s": "***"}
    assert lacks_password(stored["a"]) and not lacks_password(private["a"])
    assert restored(stored, private) == private
    other = {"a": {"uri": "http://other:pw@h"}, "words": []}
    assert restored(stored, other) == stored


def test_a_command_has_its_passwords_after_its_options() -> None:
    command = ["curl", "-u", "bob:pw", "--token", "abc", "--api-key=abc", "--user", "name", "http://h/a:b"]
    hidden = ["curl", "-u", "bob:***", "--token", "***", "--api-key=***", "--user", "name", "http://h/a:b"]
    assert hidden_in(command) == hidden and hidden_in(tuple(command)) == tuple(hidden)
    assert restored(hidden, command) == command
    assert lacks_password(hidden[:3]) and not lacks_password(command)


def test_stars_that_are_no_password() -> None:
    assert not lacks_password(["a *** b", {"c": 1.0}])


def test_a_log_is_rewritten_only_where_it_has_to_be(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_bytes(b"10%\r20%\r\n\xff\xfe loss\n")
    log.chmod(0o640)
    before = log.stat()
    hide_in_file(log)
    assert log.stat().st_ino == before.st_ino
    log.write_bytes(b"10%\r20%\r\n\xff http://a:pw@h \xfe\n")
    hide_in_file(log)
    assert log.read_bytes() == b"10%\r20%\r\n\xff http://a:***@h \xfe\n"
    assert log.stat().st_mode == before.st_mode and list(tmp_path.iterdir()) == [log]
    hide_in_file(tmp_path / "none.log")


def test_long_texts_take_no_long_time() -> None:
    """A page or a log has a megabyte; no form of a password makes the search quadratic."""
    for text in ("a" * 10**6, "a-" * 500_000, "?token" * 100_000, '"a":' * 250_000, "x://" * 20_000):
        without_passwords(f"{text} password")
