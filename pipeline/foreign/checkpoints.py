"""Keeps the checkpoints that a script writes of itself, with the step of each, for later attempts to start from.

    kept/000000010000/model_10000_steps.zip    the script's file or folder, under its own name
    kept/000000010000.json                     its description: step, size, time

A file whose name has the step is written once, so it is hard-linked: that costs no space, and outlives the script's own
tidying up. Any other may be overwritten in place, so it is copied.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.attempt.atomic import write_atomically
from pipeline.attempt.checkpoint_files import KeptInfo, contents
from pipeline.attempt.folder import AttemptFolder
from pipeline.config import BY_TIME, CheckpointSource, ExperimentConfig
from pipeline.foreign.files import Finder, before_it_began, mark_of, places

_SHARE_OF_LOOKING = 0.05
"""How much of the time may go into looking for checkpoints."""
_STILL_NANOSECONDS = 3_000_000_000
"""What has not changed for so long before the last sign of a script is complete."""
_BEFORE = ".checkpoints-before.json"
"""In the attempt's folder: what was there before the script began."""


@dataclass(frozen=True)
class _State:
    """What a checkpoint looked like at a look: while it is written, its size or its time changes."""

    size: int
    modified: int


class Collector:
    """Keeps a script's checkpoints as they become complete. It is made before the script is started.

    A checkpoint is complete when two looks find the same size and time, or when the script has ended in order.

    Args:
        source: which files or folders.
        folder: the attempt's.
        working: the folder in which the script runs.
        root: the tracking root, in which other attempts write.
    """

    def __init__(
        self, source: CheckpointSource, folder: AttemptFolder, working: Path, root: Path, *, begun: bool = False
    ) -> None:
        self._source, self._folder = source, folder
        where = places(folder.path, working, source.pattern, "", ())
        inside = [place for place in where if place.folder == folder.path]
        self._finders = [
            Finder(inside, [folder.kept], folders=True),
            Finder([place for place in where if place not in inside], [root], folders=True),
        ]
        before_it_began(self._finders, folder.path / _BEFORE, begun=begun)
        self._seen = self._stood_still() if begun else {}
        self._kept: dict[Path, _State] = {}
        self._step, self._look_again = 0, 0.0
        self._problems: dict[str, bool] = {}

    @staticmethod
    def of(
        config: ExperimentConfig, folder: AttemptFolder, working: Path, root: Path, *, begun: bool = False
    ) -> Collector | None:
        """The collector of an attempt; None: its trainer describes its checkpoints itself, or writes none."""
        source = config.trainer.checkpoints
        if config.trainer.command is None or source is None:
            return None
        return Collector(source, folder, working, root, begun=begun)

    def poll(self, step: int) -> None:
        """Looks for checkpoints. `step`: that of the newest metrics."""
        self._step, began = max(0, step), time.monotonic()
        if began >= self._look_again:
            self._look(in_order=False)
            self._look_again = began + (time.monotonic() - began) / _SHARE_OF_LOOKING

    def finish(self, *, in_order: bool) -> None:
        """Looks for the last time. `in_order`: the script has ended by itself, so it has half written nothing."""
        self._look(in_order=in_order)

    def news(self) -> list[str]:
        """What the user should know of the checkpoints, a sentence each, once."""
        news = [problem for problem, said in self._problems.items() if not said]
        self._problems |= dict.fromkeys(news, True)
        return news

    def _look(self, *, in_order: bool) -> None:
        for finder in self._finders:
            for path in finder.found():
                if (state := _state(path)) is None or self._kept.get(path) == state:
                    continue
                stands_still = self._seen.get(path) == state
                self._seen[path] = state
                if stands_still or in_order:
                    self._kept[path] = state
                    try:
                        self._keep(path, state)
                    except OSError as error:
                        self._problems.setdefault(f"checkpoint {path} is not kept: {error}", False)

    def _stood_still(self) -> dict[Path, _State]:
        """Those that were complete before the script gave its last sign: it may be gone, and nobody has looked."""
        found = {path: state for finder in self._finders for path in finder.found() if (state := _state(path))}
        signs = [mark.modified for path in self._folder.signs if (mark := mark_of(path)) is not None]
        last = max([*signs, *(state.modified for state in found.values())], default=0)
        return {path: state for path, state in found.items() if state.modified < last - _STILL_NANOSECONDS}

    def _keep(self, path: Path, state: _State) -> None:
        if (step := self._step_of(path)) is None:
            return
        kept = self._folder.kept
        kept.mkdir(mode=0o700, exist_ok=True)
        if _has_it(kept, step, path, state):  # an orchestrator before this one has kept it
            return
        name = next(name for name in _names(step) if not (kept / f"{name}.json").exists())
        part = kept / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            _copy(path, part / path.name, link=self._source.step != BY_TIME)
            shutil.rmtree(kept / name, ignore_errors=True)
            part.replace(kept / name)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        size, modified = contents(kept / name / path.name)
        if size != state.size:  # it has been written to meanwhile: the next look takes it
            shutil.rmtree(kept / name)
            self._kept.pop(path, None)
            return
        info = KeptInfo(step=step, file=f"{name}/{path.name}", size=size, modified=modified, origin=str(path))
        write_atomically(kept / f"{name}.json", json.dumps(info.__dict__))
        self._thin_out()

    def _step_of(self, path: Path) -> int | None:
        """The step of a checkpoint; None: its name has none, as of the newest one under a fixed name."""
        if self._source.step == BY_TIME:
            return self._step
        found = re.findall(self._source.step, str(path))
        with contextlib.suppress(ValueError):
            return int(found[-1] if found else "")
        return None

    def _thin_out(self) -> None:
        """Keeps as many as the user says: the newest two, the oldest, and the others ever farther apart with age."""
        descriptions = sorted(self._folder.kept.glob("*.json"))
        steps = [int(path.stem.partition("-")[0]) for path in descriptions]
        while len(steps) > self._source.keep:
            index = _most_dispensable(steps)
            steps.pop(index)
            description = descriptions.pop(index)
            description.unlink(missing_ok=True)
            shutil.rmtree(description.with_suffix(""), ignore_errors=True)


def _has_it(kept: Path, step: int, path: Path, state: _State) -> bool:
    """Whether a description tells of this very checkpoint."""
    for description in kept.glob(f"{step:012d}*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            info = json.loads(description.read_text(encoding="utf-8"))
            if (info["origin"], info["size"]) == (str(path), state.size) and (
                description.with_suffix("") / path.name
            ).exists():
                return True
    return False


def _names(step: int) -> Sequence[str]:
    return [f"{step:012d}", *(f"{step:012d}-{number}" for number in range(1, 1000))]


def _most_dispensable(steps: Sequence[int]) -> int:
    """The index of the one, in a rising list, whose neighbours are nearest to each other for its age."""
    inner = range(1, len(steps) - 2)
    if not inner:
        return 0
    return min(inner, key=lambda index: (steps[index + 1] - steps[index - 1]) / (steps[-1] - steps[index] + 1))


def _state(path: Path) -> _State | None:
    try:
        return _State(*contents(path))
    except OSError:  # it is gone, or one of its files is
        return None


def _copy(source: Path, target: Path, *, link: bool) -> None:
    def copy(before: str, after: str) -> None:
        if link:
            with contextlib.suppress(OSError):  # another file system, or one without hard links
                os.link(before, after)
                return
        shutil.copy2(before, after)

    if source.is_dir():
        shutil.copytree(source, target, copy_function=copy)
    else:
        copy(str(source), str(target))
