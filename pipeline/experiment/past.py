"""What an experiment has left behind, read back from MLflow and from the folders of its attempts."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

import yaml
from pydantic import ValidationError

from fallbacks.ladder import Ladder, Plan
from pipeline.attempt.checkpoint_files import fingerprint, usable
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile, WarmStart
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.record import Attempt, AttemptSummary
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.verdict import Evidence, Verdict
from pipeline.processes.owner import Lock
from pipeline.tracking.store import Run, Store


@dataclass(frozen=True)
class Past:
    """Of an experiment that was cut off, all that is needed to go on with it."""

    parent: str
    config: ExperimentConfig
    lock: Lock
    attempts: tuple[Attempt, ...]
    """In their order; each has a verdict, if only `interrupted`."""
    summaries: tuple[AttemptSummary, ...]
    """Of the same attempts."""
    random_score: dict[str, float]
    seconds: float
    """That it has taken so far."""
    problems: tuple[str, ...]
    """What was found damaged, a sentence each."""


RESUMABLE = (None, "interrupted", "error")
"""Outcomes of experiments that can go on."""


def outcome(parent: Run) -> str | None:
    return parent.data.tags.get("ladder.outcome")


def read_config(store: Store, parent: Run) -> ExperimentConfig:
    """The configuration of an experiment.

    Raises:
        BadInput: there is none that this version understands.
    """
    text = store.read_text(parent.info.run_id, "experiment.yaml") or parent.data.tags.get("ladder.settings", "")
    try:
        return ExperimentConfig.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())[:300]
        raise BadInput(f"{parent.info.run_id}: its configuration is not one of this version: {problem}") from error


def read_past(store: Store, parent: Run, config: ExperimentConfig, lock: Lock) -> Past:
    """Everything, once no attempt is RUNNING any more."""
    ladder, tags = Ladder(config), parent.data.tags
    attempts: list[Attempt] = []
    summaries: list[AttemptSummary] = []
    problems: list[str] = []
    random_score: dict[str, float] = {}
    for run in store.attempts(parent):
        attempt, bad = _read_attempt(store, run, ladder, attempts)
        seen = Watchdog(store, attempt.run_id, ())
        seen.refresh()
        attempts.append(attempt)
        seconds = seen.latest.get("cost/seconds", 0.0)
        summaries.append(AttemptSummary.of(attempt, seen.latest, seen.last_step, seconds))
        problems += [f"passed over: checkpoint {each}" for each in bad]
        random_score |= {name: value for name, value in seen.latest.items() if name.startswith("random/")}
    return Past(
        parent=parent.info.run_id,
        config=config,
        lock=lock,
        attempts=tuple(attempts),
        summaries=tuple(summaries),
        random_score=random_score,
        seconds=max(float(tags.get("ladder.seconds", 0.0)), 60 * sum(each.minutes for each in summaries)),
        problems=tuple(problems),
    )


def _read_attempt(store: Store, run: Run, ladder: Ladder, earlier: list[Attempt]) -> tuple[Attempt, tuple[str, ...]]:
    """An attempt, and what is wrong with its checkpoints."""
    folder = AttemptFolder.of(store.root, run.info.run_id)
    config, warm_start = _beginning(folder, ladder, earlier, run.data.tags["ladder.rung"])
    checkpoints, bad = usable(folder.checkpoints, fingerprint(config))
    attempt = Attempt(
        number=len(earlier),
        rung=run.data.tags["ladder.rung"],
        config=config,
        run_id=run.info.run_id,
        verdict=_verdict(folder, run),
        checkpoints=checkpoints,
        warm_start=warm_start,
    )
    return attempt, bad


def _beginning(
    folder: AttemptFolder, ladder: Ladder, earlier: list[Attempt], rung: str
) -> tuple[ExperimentConfig, WarmStart | None]:
    """With what an attempt began: its file says so; where it was cut off before that was written, the ladder."""
    with contextlib.suppress(OSError, ValidationError):
        file = AttemptFile.read(folder.file)
        # What this resume has changed holds for the attempts before it too.
        changed = {"budget": ladder.base.budget, "tracking": ladder.base.tracking}
        return file.config.model_copy(update=changed), file.warm_start
    plan = ladder.resume(earlier)
    if isinstance(plan, Plan) and plan.rung.name == rung:
        return plan.config, plan.warm_start
    return ladder.configs[[each.name for each in ladder.rungs].index(rung)], None


def _verdict(folder: AttemptFolder, run: Run) -> Verdict:
    ending, tags = Ending.read(folder.path), run.data.tags
    if ending is not None:
        return ending.verdict
    with contextlib.suppress(KeyError, ValueError):
        evidence = tuple(Evidence.model_validate(each) for each in json.loads(tags["ladder.evidence"]))
        return Verdict.model_validate({"name": tags["ladder.verdict"], "evidence": evidence})
    return Verdict(name="interrupted")
