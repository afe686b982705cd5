"""What an experiment has left behind, read back from MLflow and from the folders of its attempts."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fallbacks.ladder import Attempt, Ladder, Plan
from pipeline.attempt import AttemptFile, WarmStart
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.health.verdict import Evidence, Verdict
from pipeline.survival.checkpoint_files import fingerprint, usable
from pipeline.survival.ending import Ending
from pipeline.survival.owner import Lock
from pipeline.tracking.store import Run, Store
from pipeline.watch import Watch


@dataclass(frozen=True)
class Past:
    """Of an experiment that was cut off, all that is needed to go on with it."""

    parent: str
    config: ExperimentConfig
    lock: Lock
    attempts: tuple[Attempt, ...]
    """In their order; each has a verdict, if only `interrupted`."""
    rows: tuple[dict[str, Any], ...]
    """Of the table of attempts."""
    random_score: dict[str, float]
    seconds: float
    """That it has taken so far."""
    problems: tuple[str, ...]
    """What was found damaged, a sentence each."""


RESUMABLE = (None, "interrupted", "error")
"""Outcomes of experiments that can go on."""


def outcome(parent: Run) -> str | None:
    return parent.data.tags.get("ladder.outcome")


def lock_path(root: Path, parent: str) -> Path:
    return root / "experiments" / f"{parent}.lock"


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
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    random_score: dict[str, float] = {}
    for run in store.attempts(parent):
        attempt, bad = _read_attempt(store, run, ladder, attempts)
        watch = Watch(store, attempt.run_id, ())
        watch.refresh()
        attempts.append(attempt)
        rows.append(row(attempt, watch, watch.latest.get("cost/seconds", 0.0)))
        problems += [f"passed over: checkpoint {each}" for each in bad]
        random_score |= {name: value for name, value in watch.latest.items() if name.startswith("random/")}
    return Past(
        parent=parent.info.run_id,
        config=config,
        lock=lock,
        attempts=tuple(attempts),
        rows=tuple(rows),
        random_score=random_score,
        seconds=max(float(tags.get("ladder.seconds", 0.0)), 60 * sum(each["minutes"] for each in rows)),
        problems=tuple(problems),
    )


def _read_attempt(store: Store, run: Run, ladder: Ladder, earlier: list[Attempt]) -> tuple[Attempt, tuple[str, ...]]:
    """An attempt, and what is wrong with its checkpoints."""
    folder = store.root / "attempts" / run.info.run_id
    config, warm_start = _beginning(folder, ladder, earlier, run.data.tags["ladder.rung"])
    checkpoints, bad = usable(folder / "checkpoints", fingerprint(config))
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
    folder: Path, ladder: Ladder, earlier: list[Attempt], rung: str
) -> tuple[ExperimentConfig, WarmStart | None]:
    """With what an attempt began: its file says so; where it was cut off before that was written, the ladder."""
    with contextlib.suppress(OSError, ValidationError):
        file = AttemptFile.read(folder / "attempt.json")
        # What this resume has changed holds for the attempts before it too.
        changed = {"budget": ladder.base.budget, "tracking": ladder.base.tracking}
        return file.config.model_copy(update=changed), file.warm_start
    plan = ladder.resume(earlier)
    if isinstance(plan, Plan) and plan.rung.name == rung:
        return plan.config, plan.warm_start
    return ladder.configs[[each.name for each in ladder.rungs].index(rung)], None


def _verdict(folder: Path, run: Run) -> Verdict:
    ending, tags = Ending.read(folder), run.data.tags
    if ending is not None:
        return ending.verdict
    with contextlib.suppress(KeyError, ValueError):
        evidence = tuple(Evidence.model_validate(each) for each in json.loads(tags["ladder.evidence"]))
        return Verdict.model_validate({"name": tags["ladder.verdict"], "evidence": evidence})
    return Verdict(name="interrupted")


def row(attempt: Attempt, watch: Watch, seconds: float) -> dict[str, Any]:
    """An attempt's line in the table of attempts."""
    start, latest = attempt.warm_start, watch.latest
    return {
        "attempt": attempt.number,
        "rung": attempt.rung,
        "verdict": attempt.verdict.name,
        "evidence": attempt.verdict.sentence,
        "from": f"episode {start.episode}" if start else "scratch",
        "episodes": int(latest.get("episodes", 0)),
        "steps": int(max(0, watch.last_step)),
        "minutes": round(seconds / 60, 1),
        "score": _rounded(latest.get("score_window")),
        "best score": _rounded(latest.get("best/score_window")),
        "run_id": attempt.run_id,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
