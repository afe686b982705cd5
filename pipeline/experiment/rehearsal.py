"""A rehearsal: each rung of a trainer of the user's own starts for some seconds, in a store that is thrown away.

It goes like this, with the supervisor and the launcher of an experiment:

for each rung
    start it from scratch, and end it in order when the seconds are over
    ask the store which metrics came, and the rules which of them they could not judge
    if it has left a checkpoint, or a rung before has: start it from there, until it logs
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from fallbacks.ladder import Ladder
from fallbacks.rung import Rung
from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, usable
from pipeline.attempt.file import AttemptFile, WarmStart
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import Spool
from pipeline.config import ExperimentConfig
from pipeline.experiment.supervisor import Supervisor
from pipeline.experiment.watchdog import SYSTEM, Watchdog
from pipeline.foreign.command import command_of, takes_checkpoint
from pipeline.foreign.names import Names
from pipeline.health.verdict import Verdict
from pipeline.launchers.base import Launcher
from pipeline.launchers.exit import tail_of
from pipeline.processes.signals import heeded
from pipeline.tracking.access import default_uri, tracking_root
from pipeline.tracking.patience import Patience
from pipeline.tracking.store import Store

_POLL_SECONDS = 0.5
_STORE_AWAY_SECONDS = 60.0


@dataclass(frozen=True)
class Start:
    """What one start of a trainer came to."""

    seconds: float
    verdict: Verdict
    """`interrupted`: it was still at work when the seconds were over."""
    first_after: float | None
    """Seconds until a poll saw its first metric; None: no poll did."""
    metrics: Mapping[str, int]
    """The script's own names → how many values of each."""
    steps: tuple[int, int] | None
    """The first and the last step; None: it has logged nothing."""
    unjudged: Mapping[str, str]
    """Rule → why it could not be judged."""
    checkpoints: tuple[Checkpoint, ...]
    """Oldest first."""
    problems: tuple[str, ...]
    """What is wrong with its other checkpoints."""
    log: tuple[str, ...]
    """The last lines that it printed."""

    @property
    def has_logged(self) -> bool:
        return bool(self.metrics)

    @property
    def has_failed(self) -> bool:
        """Whether it died, fell silent, or logged nothing."""
        return self.verdict.is_infrastructure_failure or not self.has_logged


@dataclass(frozen=True)
class Rehearsed:
    """One rung: its start from scratch, and one from a checkpoint, if there was any."""

    rung: str
    config: ExperimentConfig
    start: Start
    source: tuple[str, Checkpoint] | None = None
    """The rung that has written the checkpoint, and the checkpoint."""
    restart: Start | None = None

    @property
    def goes_on(self) -> bool | None:
        """Whether the steps of the restart go on from the checkpoint; None: that cannot be told."""
        if self.restart is None or self.restart.steps is None or self.source is None:
            return None
        first = self.restart.steps[0]
        if first < self.source[1].step:
            return False
        return True if self.start.steps is None or first > self.start.steps[0] else None

    @property
    def unnamed(self) -> dict[str, str]:
        """Key of `trainer.names` → why there is nothing behind it, in words."""
        found = {}
        for name, source in Names.of(self.config).sources.items():
            if source.weak or source.metric is None or source.metric in self.start.metrics:
                continue
            near = get_close_matches(source.metric, self.start.metrics, 1, 0.5)
            found[name] = f"no metric {source.metric} came" + (f"; nearest: {near[0]}" if near else "")
        return found


@dataclass
class Rehearsal:
    """Rehearses the rungs of an experiment.

    Args:
        seconds: how long each start lasts at most.
        tell: called with what the user should know beside the results.
    """

    config: ExperimentConfig
    launcher: Launcher
    seconds: float
    tell: Callable[[str], None]
    asked_to_stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Iterator[Rehearsed]:
        """Each rung as it is done. What it has written under the tracking root is gone when the last one is.

        Raises:
            InfrastructureFailure: a trainer cannot be started, or the disk is full.
        """
        ladder = Ladder(self.config)
        place = tempfile.TemporaryDirectory(prefix="ladder-check-", dir=self._shared(), ignore_cleanup_errors=True)
        with place as name:
            root = Path(name).resolve()
            store = Store(default_uri(root), root)
            store.patience = Patience(_STORE_AWAY_SECONDS, self.asked_to_stop, self.tell)
            with heeded(self.asked_to_stop), contextlib.closing(_Stage(self, store)) as stage:
                left: tuple[str, Start] | None = None
                for rung, config in zip(ladder.rungs, ladder.configs, strict=True):
                    rehearsed = self._rung(stage, rung, config, left)
                    if self.asked_to_stop.is_set():
                        return
                    yield rehearsed
                    if left is None and rehearsed.start.checkpoints:
                        left = rung.name, rehearsed.start

    def _shared(self) -> Path | None:
        """A folder that the nodes of a cluster have too; None: this machine's folder for temporary files will do."""
        if self.config.launcher.kind == "local":
            return None
        root = tracking_root(self.config)
        return next(each for each in (root, *root.parents) if each.is_dir())

    def _rung(self, stage: _Stage, rung: Rung, config: ExperimentConfig, left: tuple[str, Start] | None) -> Rehearsed:
        """`left`: the rung before that has left a checkpoint. The ladder would start this one from there."""
        done = Rehearsed(rung.name, config, stage.start(rung, config, None))
        warm = config.ladder.warm_start and rung.warm_start
        name, source = left if left is not None and warm else (rung.name, done.start)
        if not takes_checkpoint(config) or not done.start.has_logged or not source.checkpoints:
            return done
        checkpoint = _to_start_from(source)
        given = WarmStart(
            checkpoint=checkpoint.path,
            run_id=stage.run_of(checkpoint),
            episode=checkpoint.episode,
            carry=rung.carry,
            exact=source is done.start,
        )
        return replace(done, source=(name, checkpoint), restart=stage.start(rung, config, given))


class _Stage:
    """Where trainers start: a store of its own, and the supervisor of an experiment."""

    def __init__(self, rehearsal: Rehearsal, store: Store) -> None:
        self._rehearsal, self._store, self._number = rehearsal, store, 0
        self._parent = store.start_parent(rehearsal.config)
        self._began, self._until_first = 0.0, False
        self._first: float | None = None
        self._supervisor = Supervisor(
            store,
            rehearsal.launcher,
            rehearsal.config.budget,
            _POLL_SECONDS,
            ended=self._ended,
            progress=self._progress,
            sign_of_life=lambda: None,
            tell=rehearsal.tell,
            at_work=self._at_work,
        )

    def close(self) -> None:
        self._supervisor.close()

    def run_of(self, checkpoint: Checkpoint) -> str:
        """The run that has written a checkpoint."""
        return Path(checkpoint.path).relative_to(self._store.root).parts[1]

    def start(self, rung: Rung, config: ExperimentConfig, given: WarmStart | None) -> Start:
        """Starts a trainer, and returns when it is gone. `given`: from there, and it is ended as soon as it logs."""
        number, self._number = self._number, self._number + 1
        run_id = self._store.start_attempt(
            self._parent, config, rung=rung.name, number=number, diff={}, warm_start=given, reason="a rehearsal"
        )
        folder = AttemptFolder.of(self._store.root, run_id)
        file = AttemptFile(
            config=config,
            run_id=run_id,
            rung=rung.name,
            number=number,
            folder=str(folder.path),
            command=command_of(config, str(folder.path), given),
            warm_start=given,
        )
        self._began, self._first, self._until_first = time.monotonic(), None, given is not None
        verdict = self._supervisor.run(file)
        seconds = time.monotonic() - self._began
        self._store.deliver(run_id, Spool(folder.path))
        rules = config.health.build()
        watch = Watchdog(self._store, run_id, rules, chosen=rules)
        watch.refresh()
        logged = self._logged(run_id)
        steps = [step for points in logged.values() for step in points]
        checkpoints, problems = usable(folder.checkpoints, fingerprint(config))
        return Start(
            seconds=seconds,
            verdict=verdict,
            first_after=self._first,
            metrics={name: len(points) for name, points in logged.items()},
            steps=(min(steps), max(steps)) if steps else None,
            unjudged=watch.never_judged(),
            checkpoints=checkpoints,
            problems=problems,
            log=tuple(tail_of(folder.log)),
        )

    def _logged(self, run_id: str) -> dict[str, list[int]]:
        """The steps of every metric of the script's, by its own name."""
        run = self._store.run(run_id)
        names = [] if run is None else [name for name in run.entity.data.metrics if not name.startswith(SYSTEM)]
        return {name: [step for step, _, _ in points] for name, points in self._store.points(run_id, names).items()}

    def _ended(self) -> str | None:
        if self._rehearsal.asked_to_stop.is_set():
            return "asked to stop"
        if self._until_first and self._first is not None:
            return "it has logged"
        return "the seconds are over" if time.monotonic() - self._began > self._rehearsal.seconds else None

    def _at_work(self, waiting: str | None, place: str) -> None:
        if waiting is not None:
            self._began = time.monotonic()  # the seconds are those of a start, not of a queue

    def _progress(self, latest: Mapping[str, float]) -> None:
        if latest and self._first is None:
            self._first = time.monotonic() - self._began


def _to_start_from(start: Start) -> Checkpoint:
    """The newest checkpoint; of a trainer that came to its end, the newest after which something is left to do."""
    last = start.steps[1] if start.steps is not None else 0
    inside = [each for each in start.checkpoints if each.step < last]
    return inside[-1] if inside and start.verdict.name == "healthy" else start.checkpoints[-1]
