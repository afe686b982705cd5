"""The files and folders that a store stands on: they must not disappear while it is open."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import InfrastructureFailure


class Presence:
    """Holds each path from when it is first there, and complains when it is gone later.

    SQLite and MLflow would silently make an empty database, or folder, in its place.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._held: dict[Path, int] = {}

    def check(self) -> None:
        """Raises: InfrastructureFailure: a path has been removed or replaced; the message names it."""
        for path in self._paths:
            if path not in self._held:
                self._hold(path)
                continue
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise InfrastructureFailure(_said(path, "removed")) from None
            except OSError:  # it cannot be looked at now, which says nothing
                continue
            # Not by the number of the inode: a file system in layers (a container's) gives another one at the first
            # write. A file that is deleted has no name left, whatever has its name now.
            if path.is_file() and os.fstat(self._held[path]).st_nlink == 0:
                raise InfrastructureFailure(_said(path, "replaced by another"))

    def _hold(self, path: Path) -> None:
        """Keeps a handle (O_PATH), which does not touch SQLite's locks when it is closed, as any other one would."""
        try:
            self._held[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return

    def __del__(self) -> None:
        for handle in self._held.values():
            os.close(handle)


def _said(path: Path, what: str) -> str:
    return f"{path} has been {what} while it was in use; nothing is written in its place"
