"""What a training had scored before it began: the histories of the attempts that it continues."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.health.history import History
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.store import Store

_EPISODES = "episodes"
_JUDGED = "reward_plateau"
"""The verdict that ends a lineage: that standstill has had its remedy, which begins anew."""


def past_of(store: Store, run_id: str, metrics: Iterable[str], *, once: bool = False) -> tuple[History | None, bool]:
    """The history of what a run continues from, up to its checkpoint, with its own past; and whether nothing changed.

    None: it began from scratch, or from a checkpoint of a run that is gone, that counts no episodes, or that was ended
    for standing still.
    """
    names = list(dict.fromkeys([*metrics, _EPISODES]))
    return _past(store, store.run(run_id, once=once), names, (run_id,), once=once)


def _past(
    store: Store, run: object, names: Sequence[str], seen: Sequence[str], *, once: bool
) -> tuple[History | None, bool]:
    start = run.warm_start if isinstance(run, AttemptRun) and run.counts == "episode" else None
    if start is None or start.run_id in seen:
        return None, False
    before = store.run(start.run_id, once=once)
    if not isinstance(before, AttemptRun) or before.verdict_name == _JUDGED:
        return None, False
    found = store.history(before.run_id, names, once=once)
    steps, episodes = found.series(_EPISODES)
    later = steps[episodes > start.episode]
    end = later.min() if len(later) else np.inf
    older, unchanged = _past(store, before, names, (*seen, before.run_id), once=once)
    past = History(
        {
            name: [(step, value) for step, value in zip(*(each.tolist() for each in found.series(name)), strict=True)
                   if step < end]
            for name in names
        },
        past=older,
        unchanged=unchanged,
    )  # fmt: skip
    assert isinstance(run, AttemptRun)
    return past, (run.rung, run.remedy) == (before.rung, before.remedy)
