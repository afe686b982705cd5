"""Passwords, and texts without them.

A tracking URI, the URL of a study's storage, or a proxy may hold a password. The process that connects needs it. What
people read or what is kept (terminal, logs, evidence, params, tags, artifacts, files) has `***` in its place.

A password is found in two ways: by the form of the text around it, and, for the passwords of this process's own
environment and configuration (`learn`), wherever it stands.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
"""What stands in place of a password."""
_NAME = r"(?:password|passwd|pwd|passphrase|token|secret|api[_-]?key|access[_-]?key|signature|credentials?)"
_QUERY_NAME = rf"[\w.-]{{0,40}}{_NAME}[\w.-]{{0,40}}"
_END = r"\s'\"<>\\"
_USERINFO = re.compile(rf"(://)([^/:@?#{_END}]{{0,256}}):(?!\d+/)([^{_END}]{{0,512}})@")
"""`scheme://user:password@host`. A password may hold `/`, `?` or `@`; a port with a path behind it is none."""
_WHOLE_URI = re.compile(r"[\w+.-]+://([^/:@]*):(?!\d+/)(\S+)@[^@\s]*")
_TOKEN_AS_USER = re.compile(rf"(://)([^/:@?#.{_END}]{{20,512}})@")
_QUERY = re.compile(rf"([?&;]{_QUERY_NAME}=)([^&;#{_END}]+)", re.IGNORECASE)
_WORD = re.compile(
    rf"((?<![\w-])[\w-]{{0,40}}(?:password|passwd|passphrase)\s{{0,3}}=\s{{0,3}})('[^']*'|\"[^\"]*\"|[^{_END},;&)]+)",
    re.IGNORECASE,
)
"""`password=…`, as in libpq's `host=… password=…` and in a call that a traceback shows."""
_FIELD = re.compile(r"([\"'](?:[\w-]{0,40})(?:password|passwd|passphrase)[\"']\s{0,3}:\s{0,3})([\"'])(.+?)\2", re.I)
"""`"password": "…"`, as in JSON and in a printed dictionary."""
_HEADER = re.compile(r"(\b(?:basic|bearer)\s{1,3})(?=\S{0,64}[0-9=])([A-Za-z0-9+/=._~-]{8,})", re.IGNORECASE)
_OPTION = re.compile(
    rf"((?:(?<!\S)|[\"'])(?:-u|--user|--proxy-user)[\"',\s=-]{{1,8}}[^{_END}:,]{{1,256}}:)([^{_END},]+)"
)
"""`curl -u user:password`, also as a list of words."""
_USER_OPTION, _SECRET_OPTION = re.compile(r"-u|--user|--proxy-user"), re.compile(rf"--[\w-]{{0,40}}{_NAME}")
_LONG_OPTION = re.compile(rf"((?<![\w-])--[\w-]{{0,40}}{_NAME}[= ])([^{_END}]+)")
_SECRET_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY|ACCESS_KEY)$", re.IGNORECASE)
_SHORTEST = 6
"""Characters of a password that is looked for wherever it stands. A shorter one could be part of any word."""
_WORD_LENGTH = 10
"""The same for one that consists of letters alone."""

_known: dict[str, None] = {}
Content = TypeVar("Content")


def without_passwords(text: str) -> str:
    """The text with `***` in place of every password."""
    for password in _known:
        text = text.replace(password, HIDDEN)
    if "://" in text:
        text = _USERINFO.sub(rf"\1\2:{HIDDEN}@", text)
        text = _TOKEN_AS_USER.sub(rf"\1{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1{HIDDEN}", text)
    if "pass" in text.lower():
        text = _WORD.sub(rf"\1{HIDDEN}", text)
        text = _FIELD.sub(rf"\1\2{HIDDEN}\2", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _LONG_OPTION.sub(rf"\1{HIDDEN}", text)
    return _OPTION.sub(rf"\1{HIDDEN}", text)


def hidden_in(content: Content) -> Content:
    """The same for every text in lists and mappings. A list may be a command, with an option before its value."""
    if isinstance(content, str):
        return without_passwords(content)  # type: ignore[return-value]
    if isinstance(content, Mapping):
        return {key: hidden_in(value) for key, value in content.items()}  # type: ignore[return-value]
    if isinstance(content, list | tuple):
        pairs = zip((None, *content), content, strict=False)
        return type(content)(_hidden_after(option, each) for option, each in pairs)  # type: ignore[return-value]
    return content


def _hidden_after(option: Any, word: Any) -> Any:
    if isinstance(option, str) and isinstance(word, str):
        if _USER_OPTION.fullmatch(option) and ":" in word:
            return f"{word.partition(':')[0]}:{HIDDEN}"
        if _SECRET_OPTION.fullmatch(option):
            return HIDDEN
    return hidden_in(word)


def restored(stored: Any, private: Any) -> Any:
    """What was stored without its passwords, with those that a private copy of it still has."""
    if stored == hidden_in(private):
        return private
    if isinstance(stored, Mapping) and isinstance(private, Mapping):
        return {key: restored(value, private.get(key)) for key, value in stored.items()}
    if isinstance(stored, list | tuple) and isinstance(private, list | tuple) and len(stored) == len(private):
        return type(stored)(restored(each, other) for each, other in zip(stored, private, strict=True))
    return stored


def lacks_password(content: Any) -> bool:
    """Whether any text in it has `***` where a password would stand."""
    texts = list(_texts(content))
    if not any(HIDDEN in text for text in texts):
        return False
    # Any word in place of the stars is hidden again only where a password stands.
    again = _texts(hidden_in(_filled(content)))
    return HIDDEN in texts or any(HIDDEN in text for text in again)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for each in content.values() if isinstance(content, Mapping) else content:
            yield from _texts(each)


def _filled(content: Any) -> Any:
    if isinstance(content, str):
        return content.replace(HIDDEN, "stars000")
    if isinstance(content, Mapping):
        return {key: _filled(value) for key, value in content.items()}
    return [_filled(each) for each in content] if isinstance(content, list | tuple) else content


def learn(text: str) -> None:
    """Remembers the passwords of a URI, which are hidden from now on wherever they stand."""
    if (whole := _WHOLE_URI.fullmatch(text)) is not None:  # then it may hold any character, such as a quote
        _remember(whole[2], whole[1], text.replace(whole[2], "", 1))
    for match in (*_USERINFO.finditer(text), *_TOKEN_AS_USER.finditer(text), *_QUERY.finditer(text)):
        user, password = (match[2], match[3]) if match.re is _USERINFO else ("", match[2])
        _remember(password, user, text.replace(password, "", 1))


def learn_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Remembers the passwords of an environment: those of its URIs, and the variables that are one."""
    user = environment.get("MLFLOW_TRACKING_USERNAME", "")
    for name, value in environment.items():
        if "://" in value:
            learn(value)
        elif _SECRET_VARIABLE.search(name):
            _remember(value, user if name.startswith("MLFLOW_TRACKING") else "", "")


def _remember(password: str, user: str, around: str) -> None:
    plain = unquote(password)
    if len(plain) < (_WORD_LENGTH if plain.isalpha() else _SHORTEST) or plain in around or plain == user:
        return  # as a word of its own it says nothing, or stands where it is no password
    forms = {password, plain, unquote_plus(password), quote(plain, safe=""), quote_plus(plain)}
    header = base64.b64encode(f"{unquote(user)}:{plain}".encode(errors="replace")).decode()
    known = sorted({*_known, *forms, header}, key=len, reverse=True)  # one may be a part of another
    _known.clear()
    _known.update(dict.fromkeys(known))


def hide_in_file(path: Path) -> None:
    """Replaces the passwords in a log that nobody writes to any more. A log without any is left as it is."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            if not any(line != without_passwords(line) for line in file):
                return
            file.seek(0)
            changed = path.with_name(f".{path.name}.tmp")
            try:
                with changed.open("w", encoding="utf-8", errors="surrogateescape", newline="") as copy:
                    shutil.copymode(path, changed)
                    copy.writelines(map(without_passwords, file))
                changed.replace(path)
            finally:
                changed.unlink(missing_ok=True)
    except OSError:  # it is gone, or the disk is full; it is private
        return
