"""From the MLflow store to a :class:`Comparison`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.record import label_of
from pipeline.compare.frames import AttemptRow, Comparison, ExperimentRow, Shown, frame, points
from pipeline.compare.scores import random_score, recent_scores
from pipeline.compare.selection import is_shown, main_metrics
from pipeline.compare.sides import NOT_OF_TRAINING
from pipeline.compare.statistics import Interval, weighted_mean
from pipeline.compare.steps import trained_steps
from pipeline.config import ExperimentConfig, changed_keys
from pipeline.errors import BadInput
from pipeline.health.history import as_meant, is_finite
from pipeline.health.readings import doubt
from pipeline.health.rule_sets import BANDS
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun
from pipeline.tracking.store import Store, open_store

SHOWN = (
    "score", "score_window", "best/score_window", "episodes", "update", "phase", "sparse_share", "gat_smoothing",
    "steps_per_second", "memory_mb", "time/collect", "time/update", "time/report", "learning_rate",
    *(band.metric for band in BANDS),
)  # fmt: skip
"""Metrics that are read by default, beside `expert_usage/…`, `routing/…`, `situation/…` and those of the evidence."""
_FAMILIES = ("expert_usage/", "routing/", "situation/")
_MILLISECONDS_A_MINUTE = 60_000
_MOST_REMEMBERED = 300_000
"""Points that are kept in memory: some 50 MB."""


def load(
    parents: Sequence[str] = (),
    *,
    root: str | Path = "mlruns",
    uri: str | None = None,
    metrics: Iterable[str] = (),
) -> Comparison:
    """Reads experiments from the store.

    Args:
        parents: run ids of parent runs, or of any of their attempts, or the beginning of one. Without any: the
            newest experiment with its siblings, which differ from it in nothing but `training.seed` (and in
            budgets, store and notification, which `ladder resume` may have changed).
        root: the tracking root.
        uri: another store; default as for every command (MLFLOW_TRACKING_URI, else the SQLite file under the root).
        metrics: metrics to read beside those that the page shows.

    Raises:
        BadInput: there is no such run, or no experiment at all.
        InfrastructureFailure: the store cannot be reached.
    """
    config = ExperimentConfig().with_values({"tracking.root": str(root), "tracking.uri": uri})
    return read(open_store(config), parents, metrics)


class Memory:
    """The histories of attempts that have ended, for who reads the same experiment again and again."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
        self._room = _MOST_REMEMBERED

    def points(self, store: Store, run: AttemptRun, names: Sequence[str]) -> dict[str, list[tuple[int, int, float]]]:
        """As the store has them, and asked for once where nothing is added any more."""
        known = {name: self._points[run.run_id, name] for name in names if (run.run_id, name) in self._points}
        new = [name for name in names if name not in known]
        found = store.points(run.run_id, new) if new else {}
        for name, told in found.items():
            if not run.is_open and len(told) <= self._room:
                self._points[run.run_id, name] = told
                self._room -= len(told)
        return {name: (known | found)[name] for name in names if name in known or name in found}


def read(
    store: Store, parents: Sequence[str] = (), metrics: Iterable[str] = (), memory: Memory | None = None
) -> Comparison:
    """Reads the same from a store that is open.

    `memory`: what was read of these experiments before.
    """
    memory = memory or Memory()
    older: list[ExperimentRun] = []
    if parents:
        chosen = [_parent(store.find(word), store) for word in parents]
    else:
        chosen, older = _newest(store)
    experiments: list[ExperimentRow] = []
    attempts: list[AttemptRow] = []
    values: list[_Point] = []
    odd: list[_Point] = []
    shown: dict[str, Shown] = {}
    verdicts: dict[str, Verdict] = {}
    warnings: dict[str, tuple[Evidence, ...]] = {}
    for parent in {run.run_id: run for run in chosen}.values():
        nested = store.attempts(parent)
        rows = []
        more = [*metrics]
        if parent.is_of_a_script:
            shown[parent.run_id] = _shown(parent, nested)
            more += shown[parent.run_id].metrics
        for run in nested:
            found = _history(store, run, parent, more, memory)
            rows.append(_attempt(store, run, parent, found))
            values += found
            odd += [each for each in found if not is_finite(each[-1]) and each[1] in run.newest]
            with contextlib.suppress(ValueError):  # a tag that cannot be understood
                if (verdict := run.verdict) is not None:
                    verdicts[run.run_id] = verdict
            if run.warnings:
                warnings[run.run_id] = run.warnings
        experiments.append(_experiment(parent, nested, rows))
        attempts += rows
    experiments.sort(key=lambda row: row.started)
    rank = {row.parent: place for place, row in enumerate(experiments)}
    attempts.sort(key=lambda row: rank[row.parent])
    return Comparison(
        experiments=frame(ExperimentRow, experiments),
        attempts=frame(AttemptRow, attempts),
        metrics=_used(values),
        verdicts=verdicts,
        warnings=warnings,
        shown=shown,
        older=tuple(run.run_id for run in older),
        settings={run.run_id: dict(run.params) for run in chosen},
        not_finite=points((run, name, step, minutes, as_meant(value)) for run, name, step, minutes, value in odd),
    )


def _shown(parent: ExperimentRun, nested: Sequence[AttemptRun]) -> Shown:
    """The metrics of a script's attempts that are shown: the same ones of all attempts."""
    logged = dict.fromkeys(name for run in nested for name in sorted(run.newest))
    names = {
        source.metric: name
        for run in nested
        for name, source in run.names.sources.items()
        if source.metric is not None and not source.weak
    }
    found = [
        each.metric
        for run in nested
        for each in (*(run.verdict.evidence if run.verdict else ()), *run.warnings)
        if each.metric is not None and is_shown(each.metric)
    ]
    chosen = main_metrics(logged, [metric for metric, name in names.items() if is_shown(name)], found)
    others = [name for name in logged if is_shown(name) and name not in chosen]
    called = {metric: names[metric] for metric in chosen if metric in names}
    return Shown(tuple(chosen), called, tuple(others), bands=parent.params.get("health.rules") != "generic")


def siblings(parent: ExperimentRun, others: Iterable[ExperimentRun]) -> tuple[list[ExperimentRun], list[ExperimentRun]]:
    """`parent` and those that train the same with other seeds, the newest of each seed; and the older ones."""

    def trained(run: ExperimentRun) -> dict[str, str]:
        return {key: value for key, value in run.params.items() if not key.startswith(NOT_OF_TRAINING)}

    mine, by_seed, older = trained(parent), {parent.seed: parent}, []
    for run in sorted(others, key=lambda each: -each.start_time):
        alike = run.experiment_id == parent.experiment_id and trained(run) == mine
        if alike and by_seed.setdefault(run.seed, run).run_id != run.run_id:
            older.append(run)
    return list(by_seed.values()), older


def _newest(store: Store) -> tuple[list[ExperimentRun], list[ExperimentRun]]:
    newest = next(store.newest_parents(), None)
    if newest is None:
        raise BadInput("no experiments yet in this store")
    return siblings(newest, store.parents([newest.experiment_id]))


def _parent(run: LadderRun, store: Store) -> ExperimentRun:
    """The experiment that a run is, or that it is an attempt of. Raises BadInput where there is none."""
    parent = store.run(run.parent_id) if run.parent_id else run
    if not isinstance(parent, ExperimentRun):
        raise BadInput(f"{run.run_id}: is a {run.kind} without an experiment, so there are no attempts to compare")
    return parent


# One row each


def _experiment(parent: ExperimentRun, nested: Sequence[AttemptRun], rows: Sequence[AttemptRow]) -> ExperimentRow:
    outcome = parent.outcome or "running"
    healthy = outcome == "healthy" and bool(rows)
    settled = rows[-1] if healthy else None
    random = random_score(parent.metrics)  # which has it at the end
    if not np.isfinite(random.value):
        played = (Interval(row.random, row.random_low, row.random_high) for row in rows if np.isfinite(row.random))
        random = next(played, random)
    return ExperimentRow(
        parent=parent.run_id,
        experiment=parent.experiment_name,
        seed=parent.seed,
        script=parent.is_of_a_script,
        outcome=outcome,
        reason=parent.reason,
        settled_rung=label_of(parent.settled_rung, nested[-1].remedy) if healthy and parent.settled_rung else None,
        settled_run=settled.run_id if settled else None,
        model=nested[-1].model if healthy else None,
        started=_time(parent.start_time),
        minutes=_minutes(parent),
        attempts=len(rows),
        score=settled.score if settled else np.nan,
        score_low=settled.score_low if settled else np.nan,
        score_high=settled.score_high if settled else np.nan,
        random=random.value,
        random_low=random.low,
        random_high=random.high,
    )


def _attempt(store: Store, run: AttemptRun, parent: ExperimentRun, found: Sequence[_Point]) -> AttemptRow:
    start, verdict, history = run.warm_start, run.verdict, _used(found)
    series = {str(name): group.sort_values("step") for name, group in history.groupby("metric")}
    steps = series["update"].step.to_numpy() if "update" in series else history.step.to_numpy()
    if run.is_of_a_script:
        steps = np.array([step for _, _, step, _, _ in found], dtype=np.int64)
    scores, weights = recent_scores(series, run)
    score = weighted_mean(scores, weights)
    random = random_score({**parent.metrics, **run.metrics})
    return AttemptRow(
        run_id=run.run_id,
        parent=parent.run_id,
        experiment=parent.experiment_name,
        seed=run.seed,
        attempt=run.number,
        rung=run.label,
        remedy=run.remedy,
        verdict=verdict.name if verdict else "running",
        to_the_end=verdict is not None and verdict.trained_to_the_end,
        evidence=verdict.sentence if verdict else "",
        source=start.run_id if start else None,
        source_episode=start.episode if start else None,
        counts=run.counts,
        started=_time(run.start_time),
        begins=(run.start_time - parent.start_time) / _MILLISECONDS_A_MINUTE,
        minutes=_minutes(run),
        episodes=int(run.metrics.get("episodes", 0.0)),
        steps=max(int(steps.max(initial=0)), run.last_step if run.is_of_a_script else 0),
        trained_steps=trained_steps(steps, scratch=start is None),
        score=score.value,
        score_low=score.low,
        score_high=score.high,
        score_interval=f"Student's t over {len(scores)} updates" if np.isfinite(score.low) else "",
        random=random.value,
        random_low=random.low,
        random_high=random.high,
        quality=run.quality,
        best_score=run.metrics.get("best/score_window", _of(series, "score_window", np.max)),
        steps_per_second=_of(series, "steps_per_second", np.median),
        memory_mb=_of(series, "memory_mb", np.max),
        changed={key: list(values) for key, values in changed_keys(run.diff).items()},
        command=run.command,
        checkpoint=_checkpoint(store, run),
        not_stored=list(run.not_stored),
    )


def _checkpoint(store: Store, run: AttemptRun) -> str | None:
    """The newest checkpoint of an attempt, where its files are on this machine."""
    folder = AttemptFolder.of(store.root, run.run_id)
    described = [*folder.checkpoints.glob("*.json"), *folder.kept.glob("*.json")]
    newest = max(described, key=lambda path: path.name, default=None)
    if newest is None:
        return run.policy
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(newest.parent / json.loads(newest.read_text(encoding="utf-8"))["file"])
    return str(newest.with_suffix(".pt"))


def _of(series: dict[str, pd.DataFrame], name: str, function: Any) -> float:
    """A figure over all values of a metric; NaN where it was not logged."""
    return float(function(series[name].value)) if name in series else np.nan


_Point = tuple[str, str, int, float, float]
"""Run id, metric, step, minutes, value: a row of `metrics`, whatever the value is."""


def _history(store: Store, run: AttemptRun, parent: ExperimentRun, more: Iterable[str], memory: Memory) -> list[_Point]:
    """The metrics of an attempt that are shown, and all that its evidence names.

    Minutes are counted from the parent's start. Where a metric has no steps, the step is its running number.
    """
    names = [*SHOWN, *more, *(name for name in sorted(run.logged) if name.startswith(_FAMILIES))]
    names += [each.metric for each in run.verdict.evidence if each.metric] if run.verdict else []
    told = memory.points(store, run, [each for each in dict.fromkeys(names) if each in run.logged])
    began = parent.start_time
    return [
        (run.run_id, name, step if any(one[0] for one in found) else number, (time - began) / _MILLISECONDS_A_MINUTE,
         value)
        for name, found in told.items()
        for number, (step, time, value) in enumerate(found)
    ]  # fmt: skip


def _used(values: Iterable[_Point]) -> pd.DataFrame:
    """The frame of the values that can be used."""
    return points(each for each in values if doubt(each[1], each[-1]) is None)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _minutes(run: LadderRun) -> float:
    """From the start of a run to its end, or until now."""
    end = run.end_time or datetime.now(UTC).timestamp() * 1000
    return max(0.0, float(end - run.start_time)) / _MILLISECONDS_A_MINUTE  # a clock may have been wrong
