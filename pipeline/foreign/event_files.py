"""TensorBoard's event files, read with its own package, which is optional."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.foreign.row import Row
from pipeline.foreign.unread import Unread

MISSING = (
    "trainer.metrics: tensorboard needs the package `tensorboard` beside ladder (20 MB with what it needs): "
    "pip install tensorboard"
)
_EVENTS_A_LOOK = 20_000


def is_there() -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec("tensorboard") is not None


class EventTail:
    """The scalars of one event file. The loader of TensorBoard's own keeps its place between two looks."""

    def __init__(self, path: Path, since: float = 0.0) -> None:
        """`since`: events before this time (in seconds since 1970) are another run's."""
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        self.path, self._since = path, since
        self.problem: str | None = None
        self.unread = Unread(path)
        self._loader: Any = EventFileLoader(str(path))
        self._events = 0

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        # A record that is half written ends the look, and so does a damaged one.
        with contextlib.suppress(ValueError, RuntimeError):
            for event in islice(self._loader.Load(), None if to_the_end else _EVENTS_A_LOOK):
                self._events += 1
                if event.wall_time < self._since or not event.HasField("summary"):
                    continue
                metrics = {each.tag: value for each in event.summary.value if (value := _scalar(each)) is not None}
                if metrics:
                    yield Row(int(event.step), metrics, event.wall_time)

    def remarks(self) -> list[str]:
        """What the user should know once the file has ended."""
        with contextlib.suppress(OSError):
            whole, damaged = _records(self.path)
            if damaged or self._events < whole:
                return [f"{self.path} is damaged: what follows its first {self._events:,} events cannot be read"]
        return []


def _records(path: Path) -> tuple[int, bool]:
    """How many whole records a file has, and whether what follows them is damaged, and not only half written."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    size, position, whole = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            position += 16 + int.from_bytes(head[:8], "little")
            if position > size:
                return whole, masked_crc32c(head[:8]) != int.from_bytes(head[8:], "little")
            file.seek(position)
            whole += 1
    return whole, False


def _scalar(value: Any) -> float | None:
    """The number of a summary; None: it is none, such as a picture or a histogram."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.metadata.plugin_data.plugin_name != "scalars" or not value.HasField("tensor"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(value.tensor)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
