"""The experiments of a series: one after another, or several at a time, each in a thread of its own.

Of those that run at a time, each has a store, a launcher and an orchestrator. They share the display and the room of
this machine. The main thread has the signals, and passes them on: one Ctrl-C ends all in order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.callbacks.board import Board
from pipeline.callbacks.callback import Callback
from pipeline.callbacks.display import Display
from pipeline.callbacks.notify import Notifier
from pipeline.callbacks.page import PageWriter
from pipeline.callbacks.terminal import Terminal
from pipeline.commands.environment import EXIT_OF_OUTCOME, make_console
from pipeline.compare.command import compare
from pipeline.config import ExperimentConfig
from pipeline.errors import EXIT_BAD_INPUT, EXIT_HEALTHY, EXIT_INFRASTRUCTURE, BadInput, InfrastructureFailure
from pipeline.experiment.orchestrator import Orchestrator
from pipeline.experiment.past import Past
from pipeline.experiment.room import Room
from pipeline.experiment.series import Series
from pipeline.launchers.base import Launcher
from pipeline.launchers.choose import make_launcher
from pipeline.processes.signals import heeded
from pipeline.processes.streams import complain
from pipeline.tracking.store import Store

_LOOK_SECONDS = 0.2
_log = logging.getLogger("ladder")


@dataclass(frozen=True)
class Turn:
    """An experiment that is to be run, from its beginning or from where it was cut off."""

    config: ExperimentConfig
    take_up: Callable[[Store], Past] | None = None
    """Takes up what was cut off, when its turn has come; None: it begins."""

    @property
    def seed(self) -> int:
        return self.config.training.seed


def run_turns(
    turns: Sequence[Turn], series: Series | None, store: Store, launcher: Launcher, worst: int = EXIT_HEALTHY
) -> int:
    """Runs them; returns the exit code of the worst. `worst`: that of those before.

    In the end all of the series are compared, also on the page; each alone has its own among its artifacts.
    """
    at_a_time = min(turns[0].config.launcher.parallel, len(turns)) if turns else 1
    if at_a_time > 1:
        worst = _AtATime(turns, series, store).run(at_a_time, worst)
    else:
        worst = _one_after_another(turns, series, store, launcher, worst)
    if series is not None and len(parents := series.parents(store)) > 1:
        compare(store, [run.run_id for run in parents], store.root, make_console())
    return worst


def callbacks_for(
    config: ExperimentConfig, store: Store, terminal: Terminal | None = None, *, live_page: bool = True
) -> tuple[Callback, ...]:
    """Who is told of an experiment, in this order. A new callback is added here."""
    terminal = terminal or Terminal()
    return (
        Display(terminal),
        PageWriter(store, terminal.complain, live=live_page),
        Notifier(config.notify.command, terminal.complain),
    )


def _one_after_another(
    turns: Sequence[Turn], series: Series | None, store: Store, launcher: Launcher, worst: int
) -> int:
    for turn in turns:
        stopped = cannot_start = False
        try:
            past = None if turn.take_up is None else turn.take_up(store)
            config = turn.config if past is None else past.config
            orchestrator = Orchestrator(config, store, launcher, callbacks_for(config, store), series=series)
            outcome = orchestrator.run(past).outcome
            stopped, cannot_start = orchestrator.asked_to_stop is not None, outcome == "error"
            worst = max(worst, EXIT_OF_OUTCOME[outcome])
        except (BadInput, InfrastructureFailure) as error:
            if turn is turns[-1]:
                raise
            complain(f"seed {turn.seed}: {error}")
            worst = max(worst, EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_INFRASTRUCTURE)
        if stopped or cannot_start:
            _tell_what_has_not_begun(series, store)
            break
    return worst


def _tell_what_has_not_begun(series: Series | None, store: Store) -> None:
    if series is not None and (rest := series.to_come(store)):
        print(f"not begun: seed {', '.join(map(str, rest))}; `ladder resume` goes on with that too")


class _AtATime:
    """Some experiments at a time. What becomes of one disturbs no other."""

    def __init__(self, turns: Sequence[Turn], series: Series | None, store: Store) -> None:
        self._turns, self._series, self._store = deque(turns), series, store
        self._board, self._room = Board(), Room.here()
        self._lock = threading.Lock()
        self._asked, self._no_more = threading.Event(), threading.Event()
        self._at_work: list[Orchestrator] = []
        self._codes: list[int] = []
        self._failed: BaseException | None = None
        self._first = turns[0]

    def run(self, at_a_time: int, worst: int) -> int:
        """Runs them all; returns the exit code of the worst."""
        Terminal(self._board.console).say(f"{len(self._turns)} experiments, {at_a_time} at a time")
        stores = [Store(self._store.uri, self._store.root) for _ in range(at_a_time)]
        threads = [threading.Thread(target=self._work, args=(each,), name="experiment") for each in stores]
        with heeded(self._asked):
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                if self._asked.wait(_LOOK_SECONDS):
                    self._stop_all()
                    for thread in threads:
                        thread.join(_LOOK_SECONDS)
        if self._failed is not None:
            raise self._failed
        if self._turns:
            _tell_what_has_not_begun(self._series, self._store)
        return max([worst, *self._codes])

    def _stop_all(self) -> None:
        self._no_more.set()
        with self._lock:
            for orchestrator in self._at_work:
                orchestrator.stop("asked to stop")

    def _work(self, store: Store) -> None:
        while (turn := self._next()) is not None:
            try:
                self._codes.append(self._run(turn, store))
            except (BadInput, InfrastructureFailure) as error:
                complain(f"seed {turn.seed}: {error}")
                self._codes.append(EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_INFRASTRUCTURE)
            except BaseException as error:  # of this program's own: the others run on, and then it is raised
                _log.exception("seed %s fails", turn.seed)
                complain(f"seed {turn.seed}: {type(error).__name__}: {error}")
                self._failed = self._failed or error

    def _next(self) -> Turn | None:
        with self._lock:
            return self._turns.popleft() if self._turns and not self._no_more.is_set() else None

    def _run(self, turn: Turn, store: Store) -> int:
        past = None if turn.take_up is None else turn.take_up(store)
        config = turn.config if past is None else past.config
        terminal = self._board.terminal(f"seed {turn.seed}")
        callbacks = callbacks_for(config, store, terminal, live_page=turn is self._first)
        with contextlib.closing(make_launcher(config)) as launcher:
            orchestrator = Orchestrator(config, store, launcher, callbacks, series=self._series, room=self._room)
            with self._lock:
                self._at_work.append(orchestrator)
                if self._no_more.is_set() and self._asked.is_set():
                    orchestrator.stop("asked to stop")
            try:
                outcome = orchestrator.run(past).outcome
            finally:
                with self._lock:
                    self._at_work.remove(orchestrator)
        if outcome == "error":  # its trainer cannot start, and no other one could
            self._no_more.set()
        return EXIT_OF_OUTCOME[outcome]
