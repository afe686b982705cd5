"""After an orchestrator that is gone: its runs are ended truthfully, and its experiment can go on.

reconcile    at the start of every orchestrator: no run is left RUNNING behind somebody who is dead
take_up      for `ladder resume`: the one experiment that is to go on
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from datetime import datetime

from pydantic import ValidationError

from pipeline.attempt.checkpoint_files import Checkpoint, fingerprint, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder, experiment_lock
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment.conclude import conclude
from pipeline.experiment.past import RESUMABLE, Past, outcome, read_config, read_past
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.base import Launcher
from pipeline.processes.owner import LIFE_SIGN_SECONDS, Held, Lock, Owner
from pipeline.tracking.store import Run, Store

_SILENT_SECONDS = 4 * LIFE_SIGN_SECONDS
"""Without a sign of life for so long, somebody of whom nothing else is known gives way to a person who asks for it."""


def reconcile(store: Store, launcher: Launcher, tell: Callable[[str], None]) -> None:
    """Ends the runs that are RUNNING although their orchestrator is gone; never those of somebody alive.

    Of a study, the study's own: its trials' runs say what Optuna says, and are ended when `ladder tune` goes on.
    """
    for parent in store.left_running():
        if _kind(parent) == "study" and parent.info.status != "RUNNING":
            continue
        owner = Owner.read(parent.data.tags.get("ladder.owner", ""))
        if owner is None or owner.root != str(store.root) or owner.state(_last_sign(parent)) != "gone":
            continue
        with contextlib.suppress(Held):  # somebody goes on with it at this moment
            lock = Lock(experiment_lock(store.root, parent.info.run_id), Owner.here(store.root))
            try:
                now = store.run(parent.info.run_id)  # meanwhile it may have ended, or somebody else goes on with it
                if (
                    now is None
                    or Owner.read(now.data.tags.get("ladder.owner", "")) != owner
                    or not _running(store, now)
                ):
                    continue
                _end(store, launcher, now, owner)
                tell(f"an earlier night: run {now.info.run_id} was left RUNNING by {owner}; ended as interrupted")
            finally:
                lock.release()


def take_up(
    store: Store, launcher: Launcher, wanted: str | None, adapt: Callable[[ExperimentConfig], ExperimentConfig]
) -> Past:
    """The experiment with this parent run, or the newest unfinished one, ready to go on; its lock is taken.

    Args:
        adapt: what this call changes in its configuration (budgets, and where its store is).

    Raises:
        BadInput: there is no such experiment, it has ended, or somebody else runs it.
    """
    parent = _choose(store, wanted)
    run_id, tags = parent.info.run_id, parent.data.tags
    owner, sign = Owner.read(tags.get("ladder.owner", "")), _last_sign(parent)
    silent = _SILENT_SECONDS if sign is None else time.time() - sign
    if parent.info.status == "RUNNING" and owner is not None:
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


def _choose(store: Store, wanted: str | None) -> Run:
    parents = store.parents()
    unfinished = [run for run in parents if run.info.status == "RUNNING" or outcome(run) in RESUMABLE]
    if wanted is None:
        if not unfinished:
            raise BadInput(f"nothing to resume: {len(parents)} experiments in {store.uri}, and all have ended")
        return max(unfinished, key=lambda run: run.info.start_time)
    begin_so = [each for each in parents if len(wanted) >= 4 and each.info.run_id.startswith(wanted)]
    run = begin_so[0] if len(begin_so) == 1 else store.run(wanted)
    kind = _kind(run) if run is not None else None
    if run is None or kind is None:
        names = ", ".join(each.info.run_id for each in unfinished[:5]) or "none"
        raise BadInput(f"{wanted}: no run of an experiment in {store.uri}; unfinished: {names}")
    if kind == "attempt":
        raise BadInput(f"{wanted}: is an attempt; resume its experiment {run.data.tags['mlflow.parentRunId']}")
    if kind != "experiment":
        raise BadInput(f"{wanted}: is a {kind}, not an experiment; with a study, `ladder tune` goes on")
    if run.info.status != "RUNNING" and outcome(run) not in RESUMABLE:
        raise BadInput(f"{wanted}: has ended, {outcome(run)}; there is nothing to resume")
    return run


def _end(store: Store, launcher: Launcher, parent: Run, owner: Owner | None) -> None:
    """Truthful verdicts for what was cut off: what the attempt's folder knows, else `interrupted`."""
    sign = parent.data.tags.get("ladder.alive", "never")
    reason = f"the orchestrator ({owner or 'unknown'}) is gone; its last sign of life: {sign}"
    attempts = store.attempts(parent)
    known = sum(run.data.metrics.get("cost/seconds", 0.0) for run in attempts)
    for run in attempts:
        if run.info.status != "RUNNING":
            continue
        folder = AttemptFolder.of(store.root, run.info.run_id)
        launcher.end_remains(folder.file)
        shutil.rmtree(folder.scratch, ignore_errors=True)
        rules: tuple[Rule, ...] = ()
        checkpoints: tuple[Checkpoint, ...] = ()
        with contextlib.suppress(OSError, ValidationError):  # cut off before it was written: nothing has begun
            config = AttemptFile.read(folder.file).config
            rules, checkpoints = config.health.build(), usable(folder.checkpoints, fingerprint(config))[0]
        ending = Ending.read(folder.path)
        if ending is None:
            before = run.data.metrics.get("cost/seconds", 0.0)
            seconds = max(before, float(parent.data.tags.get("ladder.seconds", 0.0)) - (known - before))
            evidence = Evidence(rule="interrupted", detail={"reason": reason})
            ending = Ending.now(Verdict(name="interrupted", evidence=(evidence,)), seconds)
            ending.write(folder.path)
        conclude(store, run.info.run_id, ending, rules, checkpoints)
    if parent.info.status == "RUNNING":
        said = outcome(parent)  # with its note, a moment before it was cut off; a study has one all along
        note = parent.data.tags.get("mlflow.note.content", "") if said or _kind(parent) == "study" else ""
        note = note or f"**interrupted** – {reason}"
        store.end_parent(parent.info.run_id, said or "interrupted", None, None, note)


def _running(store: Store, parent: Run) -> bool:
    return any(run.info.status == "RUNNING" for run in (parent, *store.attempts(parent)))


def _kind(run: Run) -> str | None:
    """experiment, attempt, study, trial, validation; None: somebody else's."""
    kind: str | None = run.data.tags.get("ladder.kind")
    return kind


def _last_sign(parent: Run) -> float | None:
    """When its orchestrator gave its last sign of life, in seconds since 1970."""
    with contextlib.suppress(KeyError, ValueError):
        return datetime.fromisoformat(parent.data.tags["ladder.alive"]).timestamp()
    return None
