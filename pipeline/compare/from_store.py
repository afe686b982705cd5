"""From the MLflow store to a :class:`Comparison`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.compare.frames import Comparison
from pipeline.compare.statistics import recent_mean
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput
from pipeline.health.rule_sets import BANDS
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.store import Run, Store, open_store

SHOWN = (
    "score", "score_window", "best/score_window", "episodes", "update", "phase", "sparse_share", "gat_smoothing",
    "steps_per_second", "memory_mb", "time/collect", "time/update", "time/report", "learning_rate",
    *(band.metric for band in BANDS),
)  # fmt: skip
"""Metrics that are read by default; with them `expert_usage/…`, `routing/…`, `situation/…` and all evidence."""
_NOT_OF_TRAINING = ("training.seed", "budget.", "tracking.", "notify.")
_FAMILIES = ("expert_usage/", "routing/", "situation/")


def load(
    parents: Sequence[str] = (),
    *,
    root: str | Path = "mlruns",
    uri: str | None = None,
    metrics: Iterable[str] = (),
) -> Comparison:
    """Reads experiments from the store.

    Args:
        parents: run ids of parent runs, or of any of their attempts, or the beginning of one. None: the newest
            experiment, together with its siblings: those that differ from it in nothing but `training.seed` (and
            in budgets, store and notification, which `ladder resume` may have changed).
        root: the tracking root.
        uri: another store; default as for every command (MLFLOW_TRACKING_URI, else the SQLite file under the root).
        metrics: further metrics to read, beside those that the page shows.

    Raises:
        BadInput: there is no such run, or no experiment at all.
        InfrastructureFailure: the store cannot be reached.
    """
    config = ExperimentConfig().with_values({"tracking.root": str(root), "tracking.uri": uri})
    return read(open_store(config), parents, metrics)


def read(store: Store, parents: Sequence[str] = (), metrics: Iterable[str] = ()) -> Comparison:
    """The same from a store that is open."""
    runs = {run.info.run_id: run for _, each in store.experiments() for run in each}
    chosen = [_parent(store.find(word), runs) for word in parents] if parents else _newest(runs.values())
    experiments, attempts, values, verdicts = [], [], [], {}
    for parent in dict.fromkeys(chosen):
        rows = []
        nested = [run for run in runs.values() if run.data.tags.get("mlflow.parentRunId") == parent]
        for run in sorted(nested, key=lambda each: int(each.data.tags["ladder.attempt"])):
            verdict = _verdict(run)
            names = [*SHOWN, *metrics, *(name for name in run.data.metrics if name.startswith(_FAMILIES))]
            names += [each.metric for each in verdict.evidence if each.metric] if verdict else []
            points = store.points(run.info.run_id, [each for each in dict.fromkeys(names) if each in run.data.metrics])
            history = _history(run.info.run_id, points, runs[parent].info.start_time)
            rows.append(_attempt(run, runs[parent], verdict, history))
            values.append(history)
            if verdict is not None:
                verdicts[run.info.run_id] = verdict
        model = runs[rows[-1]["run_id"]].data.tags.get("ladder.model") if rows else None
        experiments.append(_experiment(runs[parent], rows, model))
        attempts += rows
    order = sorted(range(len(experiments)), key=lambda index: experiments[index]["started"])
    rank = {experiments[index]["parent"]: place for place, index in enumerate(order)}
    integers = {"seed": "Int64"}
    return Comparison(
        experiments=pd.DataFrame([experiments[index] for index in order]).astype(integers),
        attempts=pd.DataFrame(sorted(attempts, key=lambda row: rank[row["parent"]]), columns=list(_ATTEMPT)).astype(
            integers | {"source_episode": "Int64"}
        ),
        metrics=pd.concat(values, ignore_index=True) if values else _history("", {}, 0),
        verdicts=verdicts,
    )


def siblings(parent: Run, others: Iterable[Run]) -> list[str]:
    """Run ids of `parent` and of the parents that train the same with other seeds, the newest of each seed."""

    def trained(run: Run) -> dict[str, str]:
        return {key: value for key, value in run.data.params.items() if not key.startswith(_NOT_OF_TRAINING)}

    mine, by_seed = trained(parent), {parent.data.params.get("training.seed"): parent}
    for run in sorted(others, key=lambda each: -each.info.start_time):
        if run.info.experiment_id == parent.info.experiment_id and trained(run) == mine:
            by_seed.setdefault(run.data.params.get("training.seed"), run)
    return [str(run.info.run_id) for run in by_seed.values()]


def _newest(runs: Iterable[Run]) -> list[str]:
    parents = [run for run in runs if run.data.tags["ladder.kind"] == "experiment"]
    if not parents:
        raise BadInput("no experiments yet in this store")
    return siblings(max(parents, key=lambda run: run.info.start_time), parents)


def _parent(run: Run, runs: Mapping[str, Run]) -> str:
    """The experiment that a run is, or of which it is an attempt. Raises BadInput where there is none."""
    parent = runs.get(run.data.tags.get("mlflow.parentRunId", run.info.run_id))
    if parent is None or parent.data.tags["ladder.kind"] != "experiment":
        kind = run.data.tags["ladder.kind"]
        raise BadInput(f"{run.info.run_id}: is a {kind} without an experiment, so there are no attempts to compare")
    return str(parent.info.run_id)


# One row each

_EXPERIMENT = (
    "parent", "experiment", "seed", "outcome", "settled_rung", "settled_run", "model", "started", "minutes", "attempts",
    "score", "score_low", "score_high", "random", "random_low", "random_high",
)  # fmt: skip
_ATTEMPT = (
    "run_id", "parent", "experiment", "seed", "attempt", "rung", "verdict", "evidence", "source", "source_episode",
    "started", "begins", "minutes", "episodes", "steps", "trained_steps", "score", "score_low", "score_high",
    "best_score", "steps_per_second", "memory_mb", "changed",
)  # fmt: skip


def _experiment(parent: Run, attempts: list[dict[str, Any]], model: str | None) -> dict[str, Any]:
    tags, metrics = parent.data.tags, parent.data.metrics
    outcome = tags.get("ladder.outcome", "running")
    settled = attempts[-1] if outcome == "healthy" and attempts else None
    model = model if settled else None
    score = (settled["score"], settled["score_low"], settled["score_high"]) if settled else (np.nan,) * 3
    random = (metrics.get(name, np.nan) for name in ("random/score", "random/score_low", "random/score_high"))
    row = (
        parent.info.run_id, _name(parent), _seed(parent), outcome,
        tags.get("ladder.settled_rung"), settled["run_id"] if settled else None, model,
        _time(parent.info.start_time), _minutes(parent), len(attempts), *score, *random,
    )  # fmt: skip
    return dict(zip(_EXPERIMENT, row, strict=True))


def _attempt(run: Run, parent: Run, verdict: Verdict | None, history: pd.DataFrame) -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    start = json.loads(tags["ladder.warm_start"]) if tags.get("ladder.warm_start", "scratch") != "scratch" else {}
    series = {str(name): group.sort_values("step") for name, group in history.groupby("metric")}
    steps = series["update"].step.to_numpy() if "update" in series else history.step.to_numpy()
    both = _side_by_side(series, "score", "episodes")
    window = int(float(run.data.params.get("training.score_window", "100")))
    score = recent_mean(both[0], both[1], window)
    row = (
        run.info.run_id, parent.info.run_id, _name(parent), _seed(run), int(tags["ladder.attempt"]),
        tags["ladder.rung"], verdict.name if verdict else "running", verdict.sentence if verdict else "",
        start.get("run_id"), start.get("episode"), _time(run.info.start_time),
        (run.info.start_time - parent.info.start_time) / 60_000, _minutes(run),
        int(metrics.get("episodes", 0)), int(steps.max(initial=0)), _trained(steps),
        *score, metrics.get("best/score_window", np.nan),
        _of(series, "steps_per_second", np.median), _of(series, "memory_mb", np.max),
        json.loads(tags.get("ladder.diff", "{}")),
    )  # fmt: skip
    return dict(zip(_ATTEMPT, row, strict=True))


def _trained(steps: np.ndarray) -> int:
    """From the spacing of the updates, as a warm start goes on counting where the checkpoint was."""
    return int(steps.max() - steps.min() + np.diff(np.unique(steps)).min()) if len(np.unique(steps)) > 1 else 0


def _side_by_side(series: dict[str, pd.DataFrame], *names: str) -> list[np.ndarray]:
    """Values of some metrics at the steps at which all have one."""
    if any(name not in series for name in names):
        return [np.array([]) for _ in names]
    columns = [series[name].drop_duplicates("step", keep="last").set_index("step").value for name in names]
    joined = pd.concat(columns, axis=1, join="inner")
    return [joined.iloc[:, index].to_numpy() for index in range(len(names))]


def _of(series: dict[str, pd.DataFrame], name: str, function: Any) -> float:
    return float(function(series[name].value)) if name in series else np.nan


def _history(run_id: str, points: dict[str, list[tuple[int, int, float]]], began: int) -> pd.DataFrame:
    rows = [
        (run_id, name, step if any(one[0] for one in found) else number, (time - began) / 60_000, value)
        for name, found in points.items()
        for number, (step, time, value) in enumerate(found)
    ]
    frame = pd.DataFrame(rows, columns=["run_id", "metric", "step", "minutes", "value"])
    return frame.astype({"step": "int64", "minutes": "float64", "value": "float64"})


def _verdict(run: Run) -> Verdict | None:
    name = run.data.tags.get("ladder.verdict")
    if name is None:
        return None
    evidence = json.loads(run.data.tags.get("ladder.evidence", "[]"))
    return Verdict(name=name, evidence=tuple(Evidence.model_validate(each) for each in evidence))  # type: ignore[arg-type]


def _name(parent: Run) -> str:
    return str(parent.data.params.get("experiment.name", parent.info.experiment_id))


def _seed(run: Run) -> int | None:
    seed = run.data.params.get("training.seed")
    return int(seed) if seed is not None else None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _minutes(run: Run) -> float:
    end = run.info.end_time or datetime.now(UTC).timestamp() * 1000
    return float(end - run.info.start_time) / 60_000
