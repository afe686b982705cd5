"""The files of a running script that fit a pattern: those that are new or that grow since it was started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pipeline.attempt.atomic import write_atomically

_DEEPEST = 8
"""Folders between a place and a file."""
_NEVER = frozenset({"__pycache__", "node_modules", "site-packages", "mlruns", "mlartifacts"})
"""Folders that are not looked into, beside hidden ones: they are large, and no script logs there."""
_GLOB = re.compile(r"[*?\[]")


class Mark(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    size: int
    modified: int


@dataclass(frozen=True)
class Place:
    """A folder in which a script writes, with the patterns of the files that are of interest there."""

    folder: Path
    patterns: tuple[str, ...]


def places(folder: Path, working: Path, pattern: str | None, everything: str, usual: Sequence[str]) -> list[Place]:
    """The attempt's folder and the one in which the script runs.

    Args:
        pattern: the user's own, for both; an absolute one is for neither.
        everything: the pattern for the attempt's folder, where the user gives none.
        usual: those for the other folder, where all sorts of files may lie.
    """
    if pattern is None:
        return [Place(folder, (everything,)), Place(working, tuple(usual))]
    pattern = os.path.expanduser(pattern)  # noqa: PTH111  a pattern is no path
    if not pattern.startswith("/"):
        return [Place(folder, (pattern,)), Place(working, (pattern,))]
    parts = pattern.split("/")[1:]
    fixed = next((index for index, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    return [Place(Path("/", *parts[:fixed]), ("/".join(parts[fixed:]),))]


class Finder:
    """Looks for a script's files in its places. What was there before it was started counts only once it changes.

    Args:
        places: where to look.
        ignored: folders and files that are never the script's, such as those of other attempts.
        folders: whether folders are looked for, too.
    """

    def __init__(self, places: Sequence[Place], ignored: Sequence[Path] = (), *, folders: bool = False) -> None:
        self._places, self._ignored, self._folders = places, {str(path) for path in ignored}, folders
        self.before = {path: mark for path in self._all() if (mark := mark_of(path)) is not None}

    def found(self) -> list[Path]:
        """The files that are new, or differ from what they were at the start, in the order of their names."""
        return [path for path in self._all() if path not in self.before or mark_of(path) != self.before[path]]

    def _all(self) -> list[Path]:
        paths = {
            path
            for place in self._places
            for pattern in place.patterns
            for path in self._walk(str(place.folder), pattern.split("/"), _DEEPEST)
        }
        return sorted(map(Path, paths))

    def _walk(self, folder: str, parts: Sequence[str], deep: int) -> Iterator[str]:
        part, *rest = parts
        if part in ("", "."):
            if rest:
                yield from self._walk(folder, rest, deep)
            return
        if part == "**":
            yield from self._walk(folder, rest or ["*"], deep)
        try:
            entries = list(os.scandir(folder))
        except OSError:  # it is not there yet, or not ours to read
            return
        for entry in entries:
            hidden = entry.name.startswith(".") and not part.startswith(".")
            if hidden or entry.path in self._ignored:
                continue
            is_folder = _is_folder(entry)
            if part == "**":
                if is_folder and deep > 0 and entry.name not in _NEVER:
                    yield from self._walk(entry.path, parts, deep - 1)
            elif fnmatchcase(entry.name, part):
                if rest and is_folder and deep > 0:
                    yield from self._walk(entry.path, rest, deep - 1)
                elif not rest and (self._folders or not is_folder):
                    yield entry.path


def before_it_began(finders: Sequence[Finder], note: Path, *, begun: bool) -> float:
    """When the script began, in seconds since 1970. A note has it, and the files that were there then.

    `begun`: it is at work already, so the finders get what the note says; without one, all files count as new.
    """
    if begun:
        try:
            said = json.loads(note.read_text(encoding="utf-8"))
            since, before = float(said["since"]), {Path(path): Mark(*mark) for path, mark in said["before"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            since, before = 0.0, {}
        for finder in finders:
            finder.before = before
        return since
    since = time.time()
    known = {str(path): mark for finder in finders for path, mark in finder.before.items()}
    with contextlib.suppress(OSError):
        write_atomically(note, json.dumps({"since": since, "before": known}))
    return since


def mark_of(path: Path) -> Mark | None:
    """The mark of a file; None: it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Mark(status.st_ino, status.st_size, status.st_mtime_ns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
