"""What follows an orchestrator that is gone: its runs get a truthful end, and its experiment can go on.

reconcile    at the start of every orchestrator: ends the runs that a dead one has left RUNNING
take_up      for `ladder resume`: makes one experiment ready to go on
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable

from pydantic import ValidationError

from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder, experiment_lock
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, InfrastructureFailure
from pipeline.experiment.conclude import conclude
from pipeline.experiment.past import Past, is_unfinished, read_config, read_past
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import Launcher
from pipeline.processes.owner import LIFE_SIGN_SECONDS, Held, Lock, Owner
from pipeline.tracking.runs import AttemptRun, ExperimentRun, ParentRun, StudyRun
from pipeline.tracking.store import Store

_SILENT_SECONDS = 4 * LIFE_SIGN_SECONDS
"""An owner on another machine that has given no sign of life for so long gives way to a user who asks for it."""


def reconcile(store: Store, launcher: Launcher, tell: Callable[[str], None]) -> None:
    """Ends the runs that are RUNNING although their orchestrator is gone. Runs whose owner may live are left alone.

    A study's own run is ended, too. Its trials' runs are not: they say what Optuna says, and `ladder tune` ends them
    when it goes on.

    What cannot be ended is told in a line, and the others are.

    Raises:
        InfrastructureFailure: the store is out of reach.
    """
    for parent in store.left_running():
        if not isinstance(parent, ParentRun) or (isinstance(parent, StudyRun) and not parent.is_running):
            continue
        owner = parent.owner
        if owner is None or owner.root != str(store.root) or owner.state(_last_sign(parent)) != "gone":
            continue
        with contextlib.suppress(Held):  # another process goes on with it at this moment
            lock = Lock(experiment_lock(store.root, parent.run_id), Owner.here(store.root))
            try:
                now = store.run(parent.run_id)  # meanwhile it may have ended, or another process goes on with it
                if not isinstance(now, ParentRun) or now.owner != owner or not _running(store, now):
                    continue
                _end(store, launcher, now, owner)
                tell(f"an earlier night: run {now.run_id} was left RUNNING by {owner}; ended as interrupted")
            except InfrastructureFailure:
                raise
            except Exception as error:  # what its folder or its tags say may be anything
                why = " ".join(str(error).split())[:200]
                tell(f"an earlier night: run {parent.run_id} cannot be ended: {type(error).__name__}: {why}")
            finally:
                lock.release()


def take_up(
    store: Store, launcher: Launcher, wanted: str | None, adapt: Callable[[ExperimentConfig], ExperimentConfig]
) -> Past:
    """Takes the lock of an experiment, and returns all that is needed to go on with it.

    Args:
        wanted: its parent run's id, or the beginning of it; None: the newest unfinished one.
        adapt: what this call changes in its configuration (budgets, and where its store is).

    Raises:
        BadInput: there is no such experiment, it has ended, or another process runs it.
    """
    parent = _choose(store, wanted)
    run_id, owner, sign = parent.run_id, parent.owner, _last_sign(parent)
    silent = _SILENT_SECONDS if sign is None else time.time() - sign
    if parent.is_running and owner is not None:
        state = owner.state(sign)
        if state == "alive":
            raise BadInput(f"{run_id}: is being run by {owner}; two at once are not possible")
        if state == "unknown" and silent < _SILENT_SECONDS:
            raise BadInput(
                f"{run_id}: {owner} gave a sign of life {silent:.0f} s ago; if it is gone, try again in "
                f"{_SILENT_SECONDS - silent:.0f} s"
            )
    try:
        lock = Lock(experiment_lock(store.root, run_id), Owner.here(store.root))
    except Held as held:
        raise BadInput(f"{run_id}: is being run by {held}; two at once are not possible") from None
    try:
        config = adapt(read_config(store, parent))
        _end(store, launcher, parent, owner)
        return read_past(store, parent, config, lock)
    except BaseException:
        lock.release()
        raise


def _choose(store: Store, wanted: str | None) -> ExperimentRun:
    """The experiment that is to go on. Raises BadInput where there is none, or it has ended."""
    if wanted is None:
        ended = 0
        for each in store.newest_parents():
            if is_unfinished(each):
                return each
            ended += 1
        raise BadInput(f"nothing to resume: {ended} experiments in {store.uri}, and all have ended")
    begin_so = store.begin_so(wanted)
    parents = [each for each in begin_so if isinstance(each, ExperimentRun)]
    fit = parents if len(parents) == 1 else begin_so
    run = fit[0] if len(fit) == 1 else None
    if run is None:
        unfinished = (each.run_id for each in store.newest_parents() if is_unfinished(each))
        names = ", ".join(itertools.islice(unfinished, 5)) or "none"
        raise BadInput(f"{wanted}: no run of an experiment in {store.uri}; unfinished: {names}")
    if isinstance(run, AttemptRun):
        raise BadInput(f"{wanted}: is an attempt; resume its experiment {run.parent_id}")
    if not isinstance(run, ExperimentRun):
        raise BadInput(f"{wanted}: is a {run.kind}, not an experiment; with a study, `ladder tune` goes on")
    if not is_unfinished(run):
        raise BadInput(f"{wanted}: has ended, {run.outcome}; there is nothing to resume")
    return run


def _end(store: Store, launcher: Launcher, parent: ParentRun, owner: Owner | None) -> None:
    """Ends the runs that were cut off. An attempt's verdict is the one that its folder has, else `interrupted`."""
    sign = parent.last_sign.isoformat(timespec="seconds") if parent.last_sign else "never"
    reason = f"the orchestrator ({owner or 'unknown'}) is gone; its last sign of life: {sign}"
    attempts = store.attempts(parent)
    known = sum(run.metrics.get("cost/seconds", 0.0) for run in attempts)
    for run in attempts:
        if not run.is_running:
            continue
        folder = AttemptFolder.of(store.root, run.run_id)
        launcher.end_remains(folder.file)
        folder.remove_leftovers()
        rules: tuple[Rule, ...] = ()
        checkpoints: tuple[Checkpoint, ...] = ()
        chosen: tuple[Rule, ...] = ()
        with contextlib.suppress(OSError, ValidationError):  # no file yet: nothing has begun
            config = AttemptFile.read(folder.file).config
            rules, checkpoints = config.health.build(), usable(folder.checkpoints, fingerprint(config))[0]
            chosen = config.rules_to_be_judged
        ending = Ending.read(folder.path)
        if ending is None:
            before = run.metrics.get("cost/seconds", 0.0)
            seconds = max(before, parent.seconds - (known - before))
            evidence = Evidence(rule="interrupted", detail={"reason": reason})
            ending = Ending.now(Verdict(name="interrupted", evidence=(evidence,)), seconds)
            ending.write(folder.path)
        conclude(store, run.run_id, ending, rules, checkpoints, chosen=chosen)
    if parent.is_running:
        said = parent.outcome  # with its note, a moment before it was cut off; a study has a note all along
        note = parent.note if said or isinstance(parent, StudyRun) else ""
        note = note or f"**interrupted** – {reason}"
        store.end_parent(parent.run_id, said or "interrupted", None, None, note)


def _running(store: Store, parent: ParentRun) -> bool:
    """Whether the run or one of its attempts is RUNNING."""
    return any(run.is_running for run in (parent, *store.attempts(parent)))


def _last_sign(parent: ParentRun) -> float | None:
    """When the owner gave the last sign of life, in seconds since 1970."""
    return parent.last_sign.timestamp() if parent.last_sign else None
