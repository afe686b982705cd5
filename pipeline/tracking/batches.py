"""Metrics, params and tags in batches that MLflow takes, and without the ones that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline.attempt.spool import Report

Item = TypeVar("Item", Metric, Param, RunTag)
Refused = dict[str, str]
"""Key → why MLflow refuses it."""
_METRICS_AT_ONCE, _OTHERS_AT_ONCE = 1000, 100
"""MLflow's own limits."""
_CHARACTERS_AT_ONCE = 200_000
"""Far below what web servers take at once."""
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def log_metrics(client: MlflowClient, run_id: str, reports: Sequence[Report], apart: set[str]) -> Refused:
    """Logs reports. The same report twice is still one point of each curve.

    Args:
        apart: names that have been refused before; what is refused now is added. They go in batches of their own, so
            that they do not hold up the others.
    """
    metrics = [Metric(key, value, each.time, each.step) for each in reports for key, value in each.metrics.items()]
    refused: Refused = {}
    for part in ([each for each in metrics if (each.key in apart) is one] for one in (False, True)):
        for batch in _batches(part, _METRICS_AT_ONCE):
            refused |= _send(client, run_id, batch, lambda some: client.log_batch(run_id, metrics=some))
    apart.update(refused)
    return refused


def log_params(client: MlflowClient, run_id: str, params: Sequence[Param]) -> Refused:
    """Logs params. One that the run has with this value already is left as it is."""
    refused: Refused = {}
    for batch in _batches(params, _OTHERS_AT_ONCE):
        refused |= _send(client, run_id, batch, lambda some: client.log_batch(run_id, params=some))
    return refused


def set_tags(client: MlflowClient, run_id: str, tags: Sequence[RunTag]) -> Refused:
    """Sets tags."""
    refused: Refused = {}
    for batch in _batches(tags, _OTHERS_AT_ONCE):
        refused |= _send(client, run_id, batch, lambda some: client.log_batch(run_id, tags=some))
    return refused


def _batches(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for each in items:
        length = len(each.key) + len(str(each.value))
        if batch and (len(batch) == most or size + length > _CHARACTERS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += length
    if batch:
        yield batch


def _send(client: MlflowClient, run_id: str, batch: list[Item], send: Callable[[list[Any]], object]) -> Refused:
    """Sends a batch; where MLflow refuses it, halves it until those that it refuses are alone."""
    try:
        send(batch)
        return {}
    except MlflowException as error:
        if error.error_code not in _REFUSALS:
            raise
        if client.get_run(run_id).info.lifecycle_stage == "deleted":
            raise  # it is the run that takes nothing more
        if len(batch) == 1:
            return {batch[0].key: " ".join(str(error).split("supplied: ")[-1].split())[:200]}
    half = len(batch) // 2
    return {**_send(client, run_id, batch[:half], send), **_send(client, run_id, batch[half:], send)}
