"""What attempts cost, as metrics by which a table of runs can be sorted.

| metric | on | meaning |
|---|---|---|
| cost/seconds, cost/minutes | attempts | wall clock of the trainer from its start to its end |
| cost/steps | attempts | steps that the attempt has trained and reported, without those of the checkpoint it began at |
| cost/minutes, cost/steps | parent | the sum over its attempts |

All parts of an attempt that was interrupted count together, without the time between them, and without the time in a
cluster's queue. An attempt has its cost however it has ended. That of one which was killed with its orchestrator is
known to the half minute between two signs of life; that of one which has outlived it on a cluster, by its last sign.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.attempt.ending import Ending
from pipeline.compare.steps import trained_steps
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store

SECONDS, MINUTES, STEPS = "cost/seconds", "cost/minutes", "cost/steps"


def log_cost(store: Store, run_id: str, ending: Ending) -> None:
    """Logs the cost of an attempt that has ended, at its last step; the same once more changes nothing."""
    reached = {
        name: step
        for name, (step, _, _) in store.latest(run_id).items()
        if not name.startswith(("cost/", "system/", "random/"))
    }
    cost = {SECONDS: ending.seconds, MINUTES: ending.seconds / 60, STEPS: float(_steps(store, run_id, reached))}
    store.log_metrics(run_id, cost, step=max([0, *reached.values()]), at=ending.at)


def cost_together(store: Store, parent_id: str) -> dict[str, float]:
    """The sums over the attempts of a parent; without a metric that none of them has."""
    parent = store.run(parent_id)
    attempts = [] if parent is None else [run.metrics for run in store.attempts(parent)]
    found = {
        MINUTES: [each[SECONDS] / 60 for each in attempts if SECONDS in each],
        STEPS: [each[STEPS] for each in attempts if STEPS in each],
    }
    return {name: sum(values) for name, values in found.items() if values}


def _steps(store: Store, run_id: str, reached: Mapping[str, int]) -> int:
    """Steps of an attempt by one metric: the count of updates, else the one that has got furthest.

    `reached`: the last step of each metric.
    """
    run = store.run(run_id)
    if not isinstance(run, AttemptRun) or not reached:
        return 0
    name = "update" if "update" in reached else max(sorted(reached), key=lambda each: reached[each])
    points = store.points(run_id, [name]).get(name, ())
    return trained_steps((step for step, _, _ in points), scratch=run.warm_start is None)
