"""What an experiment that was cut off has left behind, in MLflow and in the folders of its attempts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from fallbacks.ladder import Ladder, Plan
from fallbacks.remedies import REMEDIES
from pipeline.attempt.checkpoint_files import fingerprint, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile, WarmStart
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput, InfrastructureFailure
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.verdict import Verdict
from pipeline.processes.owner import Lock
from pipeline.secrets import lacks_password, restored
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.runs import AttemptRun, ExperimentRun, ParentRun
from pipeline.tracking.store import Store


@dataclass(frozen=True)
class Past:
    """All that is needed to go on with an experiment that was cut off."""

    parent: str
    config: ExperimentConfig
    lock: Lock
    attempts: tuple[Attempt, ...]
    """In their order. Each has a verdict, at least `interrupted`."""
    summaries: tuple[AttemptSummary, ...]
    """What the same attempts came to."""
    random_score: dict[str, float]
    seconds: float
    """How long it has taken so far."""
    problems: tuple[str, ...]
    """What was found damaged, in a sentence each."""
    at_work: AttemptFile | None = None
    """The attempt after these, whose trainer has outlived its orchestrator on a cluster: it can be attached to."""


_RESUMABLE = (None, "interrupted", "error")
"""Outcomes of experiments that can go on."""


def is_unfinished(parent: ParentRun) -> bool:
    """Whether an experiment is RUNNING, or can go on."""
    return parent.is_open or parent.outcome in _RESUMABLE


def read_config(store: Store, parent: ExperimentRun) -> ExperimentConfig:
    """The configuration of an experiment, with the passwords that the files of its attempts have and the store has not.

    Raises:
        BadInput: there is none that this version understands.
    """
    settings, found = _mapping(parent.settings, json.loads), None
    with contextlib.suppress(InfrastructureFailure, OSError, UnicodeDecodeError):
        found = _mapping(store.read_text(parent.run_id, CONFIGURATION) or "", yaml.safe_load)
    if found is None or (settings is not None and not _says(found, settings)):  # the artifact is not whole
        found = settings
    if found is None:
        raise BadInput(f"{parent.run_id}: its configuration cannot be read, neither {CONFIGURATION} nor its tags")
    try:
        if lacks_password(found):
            for run in store.attempts(parent):
                with contextlib.suppress(OSError, ValidationError):
                    private = AttemptFile.read(AttemptFolder.of(store.root, run.run_id).file).config
                    found = restored(found, private.model_dump(mode="json"))
        return ExperimentConfig.model_validate(found)
    except ValidationError as error:
        problem = " ".join(str(error).split())[:300]
        raise BadInput(f"{parent.run_id}: its configuration is not one of this version: {problem}") from error


def _mapping(text: str, read: Callable[[str], Any]) -> dict[str, Any] | None:
    """What a text says, if it is a mapping that can be read to its end."""
    with contextlib.suppress(yaml.YAMLError, ValueError):
        found = read(text)
        return found if isinstance(found, dict) else None
    return None


def _says(found: Any, expected: Any) -> bool:
    """Whether all that is expected is in what was found, with the same values. JSON has null for what is infinite."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(key in found and _says(found[key], value) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(_says, found, expected))
    return bool(expected is None or found == expected)


def read_past(
    store: Store, parent: ExperimentRun, config: ExperimentConfig, lock: Lock, at_work: AttemptFile | None = None
) -> Past:
    """What an experiment has left behind. No other attempt than the one at work may be RUNNING any more."""
    ladder = Ladder(config)
    attempts: list[Attempt] = []
    summaries: list[AttemptSummary] = []
    problems: list[str] = []
    random_score: dict[str, float] = {}
    for run in store.attempts(parent):
        if at_work is not None and run.run_id == at_work.run_id:
            continue
        attempt, bad = _read_attempt(store, run, ladder, attempts)
        seen = Watchdog(store, attempt.run_id, ())
        seen.refresh()
        attempts.append(attempt)
        seconds = seen.latest.get("cost/seconds", 0.0)
        summaries.append(AttemptSummary.of(attempt, seen.latest, seen.last_step, seconds, run.quality))
        problems += [f"passed over: checkpoint {each}" for each in bad]
        random_score |= {name: value for name, value in seen.latest.items() if name.startswith("random/")}
    return Past(
        parent=parent.run_id,
        config=config,
        lock=lock,
        attempts=tuple(attempts),
        summaries=tuple(summaries),
        random_score=random_score,
        seconds=max(parent.seconds, 60 * sum(each.minutes for each in summaries)),
        problems=tuple(problems),
        at_work=at_work,
    )


def _read_attempt(
    store: Store, run: AttemptRun, ladder: Ladder, earlier: list[Attempt]
) -> tuple[Attempt, tuple[str, ...]]:
    """An attempt, and what is wrong with its checkpoints."""
    folder = AttemptFolder.of(store.root, run.run_id)
    config, warm_start = _beginning(folder, ladder, earlier, run.rung, run.remedy)
    checkpoints, bad = usable(folder.checkpoints, fingerprint(config))
    attempt = Attempt(
        number=len(earlier),
        rung=run.rung,
        config=config,
        run_id=run.run_id,
        verdict=_verdict(folder, run),
        checkpoints=checkpoints,
        warm_start=warm_start,
        remedy=run.remedy,
    )
    return attempt, bad


def _beginning(
    folder: AttemptFolder, ladder: Ladder, earlier: list[Attempt], rung: str, remedy: str | None
) -> tuple[ExperimentConfig, WarmStart | None]:
    """Configuration and warm start of an attempt, from its file; where there is none yet, from the ladder."""
    with contextlib.suppress(OSError, ValidationError):
        file = AttemptFile.read(folder.file)
        # What this call of `ladder resume` changes holds for the earlier attempts too.
        changed = {
            "budget": ladder.base.budget,
            "tracking": ladder.base.tracking,
            "notify": ladder.base.notify,
            "launcher": ladder.base.launcher,
        }
        return file.config.model_copy(update=changed), file.warm_start
    plan = ladder.resume(earlier)
    if isinstance(plan, Plan) and (plan.rung.name, plan.remedy) == (rung, remedy):
        return plan.config, plan.warm_start
    config = ladder.configs[[each.name for each in ladder.rungs].index(rung)]
    return REMEDIES[remedy].applied(config, 0) if remedy in REMEDIES else config, None


def _verdict(folder: AttemptFolder, run: AttemptRun) -> Verdict:
    """The verdict of an attempt: from its folder, else from the store, else `interrupted`."""
    if (ending := Ending.read(folder.path)) is not None:
        return ending.verdict
    with contextlib.suppress(ValueError):  # a tag that cannot be understood
        if (verdict := run.verdict) is not None:
            return verdict
    return Verdict(name="interrupted")
