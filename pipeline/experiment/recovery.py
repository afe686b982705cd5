"""What follows an orchestrator that is gone: its runs get a truthful end, and its experiment can go on.

reconcile    at the start of every orchestrator: ends the runs that a dead one has left RUNNING
take_up      for `ladder resume`: makes one experiment ready to go on
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder, experiment_lock, experiment_log
from pipeline.attempt.spool import Spool
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, InfrastructureFailure
from pipeline.experiment.conclude import conclude, verdict_of
from pipeline.experiment.cost import cost_together
from pipeline.experiment.past import Past, is_unfinished, read_config, read_past
from pipeline.experiment.place import Place
from pipeline.experiment.watchdog import Watchdog
from pipeline.foreign.script_files import ScriptFiles
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.channel import Channel, Launch, Started
from pipeline.launchers.choose import launcher_of
from pipeline.processes.owner import LIFE_SIGN_SECONDS, Held, Lock, Owner
from pipeline.tracking.runs import AttemptRun, ExperimentRun, ParentRun, StudyRun
from pipeline.tracking.store import Store

_LOOK_SECONDS = 2.0
_SILENT_SECONDS = 4 * LIFE_SIGN_SECONDS
"""An owner on another machine that has given no sign of life for so long gives way to a user who asks for it."""


class NothingToResume(BadInput):
    """Every experiment of the store has ended."""


def reconcile(store: Store, tell: Callable[[str], None]) -> None:
    """Ends the runs that are RUNNING although their orchestrator is gone. Runs whose owner may live are left alone.

    So is an experiment whose trainer is still queued, or at work, on a cluster: `ladder resume` attaches to it.

    A study's own run is ended, too. Its trials' runs are not: they say what Optuna says, and `ladder tune` ends them
    when it goes on.

    What cannot be ended is told in a line, and the others are.

    Raises:
        InfrastructureFailure: the store is out of reach.
    """
    for parent in store.left_running():
        if not isinstance(parent, ParentRun) or (isinstance(parent, StudyRun) and not parent.is_open):
            continue
        owner = parent.owner
        if owner is None or not _is_here(store, parent, owner) or _state(store, parent, owner) != "gone":
            continue
        with contextlib.suppress(Held):  # another process goes on with it at this moment
            lock = Lock(experiment_lock(store.root, parent.run_id), Owner.here(store.root))
            try:
                now = store.run(parent.run_id)  # meanwhile it may have ended, or another process goes on with it
                if not isinstance(now, ParentRun) or now.owner != owner or not _is_open(store, now):
                    continue
                if _remains(store, now) == "alive":
                    continue
                earned = _end(store, now, owner)
                meanwhile = f"; its trainer had ended meanwhile ({', '.join(earned)}), resume goes on after that"
                said = f"run {now.run_id} was left RUNNING by {owner}; ended as interrupted"
                tell(f"an earlier night: {said}{meanwhile if earned else ''}")
            except Exception as error:  # what its folder or its tags say may be anything, and the store may be away
                why = " ".join(str(error).split())[:200]
                kind = "" if isinstance(error, InfrastructureFailure) else f"{type(error).__name__}: "
                tell(f"an earlier night: run {parent.run_id} cannot be ended now: {kind}{why}")
            finally:
                lock.release()


def take_up(
    store: Store,
    wanted: str | None,
    adapt: Callable[[ExperimentConfig], ExperimentConfig],
    tell: Callable[[str], None] = lambda _: None,
) -> Past:
    """Takes the lock of an experiment, and returns all that is needed to go on with it.

    Args:
        wanted: its parent run's id, or the beginning of it; None: the newest unfinished one.
        adapt: what this call changes in its configuration (budgets, and where its store is).
        tell: called with a sentence when it has to wait.

    Raises:
        BadInput: there is no such experiment, it has ended, or another process runs it.
    """
    parent = _choose(store, wanted)
    run_id, owner = parent.run_id, parent.owner
    if parent.is_open and owner is not None:
        state = _state(store, parent, owner)
        if state == "alive" or (state == "unknown" and _gives_a_sign(store, parent, owner, tell)):
            raise BadInput(f"{run_id}: is being run by {owner}; two at once are not possible")
    try:
        lock = Lock(experiment_lock(store.root, run_id), Owner.here(store.root))
    except Held as held:
        raise BadInput(f"{run_id}: is being run by {held}; two at once are not possible") from None
    try:
        config = adapt(read_config(store, parent))
        at_work = _at_work(store, parent, config)
        _end(store, parent, owner, spared=None if at_work is None else at_work.run_id)
        return read_past(store, parent, config, lock, at_work)
    except BaseException:
        lock.release()
        raise


def is_run(store: Store, parent: ParentRun) -> bool:
    """Whether a process may be running an experiment that has not ended."""
    owner = parent.owner
    return parent.is_open and owner is not None and _state(store, parent, owner) != "gone"


def _choose(store: Store, wanted: str | None) -> ExperimentRun:
    """The experiment that is to go on. Raises BadInput where there is none, or it has ended."""
    if wanted is None:
        ended = 0
        for each in store.newest_parents():
            if is_unfinished(each):
                return each
            ended += 1
        raise NothingToResume(f"nothing to resume: {ended} experiments in {store.uri}, and all have ended")
    begin_so = store.begin_so(wanted)
    parents = [each for each in begin_so if isinstance(each, ExperimentRun)]
    fit = parents if len(parents) == 1 else begin_so
    run = fit[0] if len(fit) == 1 else store.run(wanted)
    if run is not None and run.is_deleted:
        raise BadInput(f"{wanted}: has been deleted; `mlflow runs restore --run-id {run.run_id}` brings it back")
    if run is None or run.kind is None:
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


def _remains(store: Store, parent: ParentRun) -> Literal["nothing", "ended", "alive"]:
    """What is left on a cluster of the attempt at work."""
    for run in store.attempts(parent):
        if run.is_open:
            file = AttemptFolder.of(store.root, run.run_id).file
            if (found := launcher_of(file).remains(file)) != "nothing":
                return found
    return "nothing"


def _at_work(store: Store, parent: ExperimentRun, config: ExperimentConfig) -> AttemptFile | None:
    """The attempt that can be attached to: its trainer is on a cluster, and is queued or at work."""
    for run in store.attempts(parent):
        folder = AttemptFolder.of(store.root, run.run_id)
        if not run.is_open or Ending.read(folder.path) is not None:
            continue
        with contextlib.suppress(OSError, ValidationError):
            file = AttemptFile.read(folder.file)
            if launcher_of(folder.file).remains(folder.file) == "alive":
                changed = {"budget": config.budget, "tracking": config.tracking, "notify": config.notify}
                return file.model_copy(update={"config": file.config.model_copy(update=changed)})
    return None


def _end(store: Store, parent: ParentRun, owner: Owner | None, spared: str | None = None) -> list[str]:
    """Ends the runs that were cut off, but for one that is spared, and with it its parent.

    An attempt's verdict is the one that its folder has; else the one that it has earned on a cluster, where its trainer
    has ended meanwhile; else `interrupted`. Returns the verdicts that were earned so.
    """
    earned = []
    sign = parent.last_sign.isoformat(timespec="seconds") if parent.last_sign else "never"
    reason = f"the orchestrator ({owner or 'unknown'}) is gone; its last sign of life: {sign}"
    attempts = store.attempts(parent)
    _end_places(store, attempts)
    known = sum(run.metrics.get("cost/seconds", 0.0) for run in attempts)
    for run in attempts:
        if not run.is_open or run.run_id == spared:
            continue
        folder = AttemptFolder.of(store.root, run.run_id)
        before = run.metrics.get("cost/seconds", 0.0)
        seconds = max(before, parent.seconds - (known - before))
        ending = Ending.read(folder.path)
        if ending is None and (verdict := _earned(store, parent, folder)) is not None:
            ending = Ending.now(verdict, max(seconds, before + _lasted(folder)))
            ending.write(folder.path)
            earned.append(verdict.name)
        launcher = launcher_of(folder.file)
        launcher.end_remains(folder.file)
        if owner is not None and not (then := AttemptFolder.of(Path(owner.root), run.run_id).file).exists():
            launcher.end_remains(then)  # the root has been moved since they started
        launcher.close()
        folder.remove_leftovers()
        rules: tuple[Rule, ...] = ()
        checkpoints: tuple[Checkpoint, ...] = ()
        chosen: tuple[Rule, ...] = ()
        with contextlib.suppress(OSError, ValidationError):  # no file yet: nothing has begun
            file = AttemptFile.read(folder.file)
            config = file.config
            rules, checkpoints = file.rules, usable(folder.checkpoints, fingerprint(config))[0]
            chosen = config.rules_to_be_judged
        if ending is None:
            evidence = Evidence(rule="interrupted", detail={"reason": reason})
            ending = Ending.now(Verdict(name="interrupted", evidence=(evidence,)), seconds)
            ending.write(folder.path)
        conclude(store, run.run_id, ending, rules, checkpoints, chosen=chosen)
    if parent.is_open and not parent.is_deleted and spared is None:
        said = parent.outcome  # with its note, a moment before it was cut off; a study has a note all along
        note = parent.note if said or isinstance(parent, StudyRun) else ""
        note = note or f"**interrupted** – {reason}"
        if isinstance(parent, ExperimentRun):
            store.log_metrics(parent.run_id, cost_together(store, parent.run_id))
        store.end_parent(parent.run_id, said or "interrupted", None, None, note)
    return earned


def _earned(store: Store, parent: ParentRun, folder: AttemptFolder) -> Verdict | None:
    """The verdict of an attempt whose trainer has ended on a cluster, as if an orchestrator had watched it.

    None: there is no such trainer. What it has written to its last moment is taken.

    Raises:
        InfrastructureFailure: the cluster does not say now how it has ended.
    """
    launcher = launcher_of(folder.file)
    match launcher.remains(folder.file):
        case "nothing":
            return None
        case "alive":
            raise InfrastructureFailure(f"its cluster does not say now whether a trainer has ended: {folder.path}")
    file = AttemptFile.read(folder.file)
    files = ScriptFiles.of(file, _began_in(parent, store), store.root, begun=True)
    with contextlib.closing(launcher):
        ended = launcher.how_it_ended(folder.file)
    if ended is None:
        return None
    files.finish(in_order=ended.in_order)
    spool = Spool(folder.path)
    store.deliver(file.run_id, spool, ended=True)
    return verdict_of(file, ended, Watchdog(store, file.run_id, file.rules, spool, file.config.rules_to_be_judged))


def _lasted(folder: AttemptFolder) -> float:
    """How many seconds a trainer has been at work on a cluster, from its start to its last sign."""
    started = Channel(folder.path).read(Started)
    signs = [each.stat().st_mtime for each in folder.signs if each.exists()]
    return 0.0 if started is None else max([0.0, *(sign - started.at for sign in signs)])


def _began_in(parent: ParentRun, store: Store) -> Path:
    """The folder in which the scripts of an experiment run."""
    with contextlib.suppress(BadInput):
        if (place := Place.read(parent.began_in)) is not None:
            return place.find(store.root)
    return Path.cwd()


def _end_places(store: Store, attempts: Sequence[AttemptRun]) -> None:
    """Gives up the places in a queue that were held for the next attempt, and that no attempt has taken."""
    folders = [AttemptFolder.of(store.root, run.run_id) for run in attempts]
    launches = [Channel(folder.path).read(Launch) for folder in folders]
    taken = {Path(launch.held) for launch in launches if launch is not None and launch.held}
    for folder in folders:
        for place in folder.places:
            if place not in taken:
                with contextlib.closing(launcher_of(folder.file)) as launcher:
                    launcher.end_place(place)


def _is_open(store: Store, parent: ParentRun) -> bool:
    """Whether the run or one of its attempts has not ended."""
    return parent.is_open or any(run.is_open for run in store.attempts(parent))


def _is_here(store: Store, parent: ParentRun, owner: Owner) -> bool:
    """Whether what the experiment has written lies under this root, which may have had another path then.

    In a store that several machines share, the attempts' folders of a run may lie elsewhere.
    """
    files = (experiment_log(store.root, parent.run_id), experiment_lock(store.root, parent.run_id))
    return owner.root == str(store.root) or store.is_own or any(each.exists() for each in files)


def _state(store: Store, parent: ParentRun, owner: Owner) -> Literal["alive", "gone", "unknown"]:
    return owner.state(_last_sign(parent), experiment_lock(store.root, parent.run_id), private=store.is_own)


def _gives_a_sign(store: Store, parent: ParentRun, owner: Owner, tell: Callable[[str], None]) -> bool:
    """Whether the owner, which may be gone, gives a sign of life while this process waits for one.

    It waits for what is left of four signs. A sign that lies in the future tells that the clocks differ, and no more.
    """
    sign, first = _last_sign(parent), parent.last_sign
    silent = _SILENT_SECONDS if sign is None else max(0.0, time.time() - sign)
    until = time.monotonic() + _SILENT_SECONDS - silent
    if silent < _SILENT_SECONDS:
        tell(f"{owner} may be running {parent.run_id}; waiting {_SILENT_SECONDS - silent:.0f} s for a sign of life")
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        now = store.run(parent.run_id)
        if not isinstance(now, ParentRun) or now.owner != owner or now.last_sign != first:
            return True
        if (state := _state(store, now, owner)) != "unknown":
            return state == "alive"
    return False


def _last_sign(parent: ParentRun) -> float | None:
    """When the owner gave the last sign of life, in seconds since 1970."""
    return parent.last_sign.timestamp() if parent.last_sign else None
