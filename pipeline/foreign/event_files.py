"""TensorBoard's event files, read with its own package, which is optional."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.foreign.row import Row

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
        self._loader: Any = EventFileLoader(str(path))

    def read(self, *, to_the_end: bool = False) -> Iterator[Row]:
        """The new rows. Raises OSError."""
        # A record that is half written ends the look, and so does a damaged one.
        with contextlib.suppress(ValueError, RuntimeError):
            for event in islice(self._loader.Load(), None if to_the_end else _EVENTS_A_LOOK):
                if event.wall_time < self._since or not event.HasField("summary"):
                    continue
                metrics = {each.tag: value for each in event.summary.value if (value := _scalar(each)) is not None}
                if metrics:
                    yield Row(int(event.step), metrics, event.wall_time)


def _scalar(value: Any) -> float | None:
    """The number of a summary; None: it is none, such as a picture or a histogram."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.metadata.plugin_data.plugin_name != "scalars" or not value.HasField("tensor"):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    return float(make_ndarray(value.tensor).item())
