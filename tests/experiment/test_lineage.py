"""What an attempt continues from counts where a rule judges a standstill."""

from __future__ import annotations

import pytest

from pipeline.attempt.file import WarmStart
from pipeline.experiment.lineage import past_of
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.flat import FlatRule
from pipeline.health.verdict import Verdict
from pipeline.tracking.store import Store
from tests.conftest import small_config

EACH = 50
RULE = FlatRule(name="flat_score", phases=(0, 1))


class Attempts:
    """Attempts of one experiment in a store, each with a score that never changes."""

    def __init__(self, store: Store) -> None:
        self.store, self.number = store, 0
        self.parent = store.start_parent(small_config())

    def play(self, first: int, last: int, start: tuple[str, int] | None = None, rung: str = "v3") -> str:
        """One that reports the episodes from `first` on, to `last`; `start`: run and episode of its checkpoint."""
        warm_start = WarmStart(checkpoint="", run_id=start[0], episode=start[1]) if start else None
        run_id = self.store.start_attempt(
            self.parent, small_config(), rung=rung, number=self.number, diff={}, warm_start=warm_start, reason=""
        )
        self.number += 1
        for episode in range(first, last + 1, EACH):
            self.store.log_metrics(run_id, {"score": 7.0, "episodes": episode, "phase": 0.0}, step=100 * episode)
        return run_id

    def verdict(self, run_id: str) -> Verdict | None:
        return Watchdog(self.store, run_id, (RULE,)).final()[0]


def test_a_standstill_is_seen_across_attempts(empty_store: Store) -> None:
    """What came after the checkpoint is of no account, and the attempts are told apart by rung."""
    attempts = Attempts(empty_store)
    first = attempts.play(1, 1001)
    second = attempts.play(851, 1601, (first, 801))
    last = attempts.play(1551, 2001, (second, 1501), rung="freeze_gat")
    past, unchanged = past_of(empty_store, last, ["score"])
    assert past is not None and past.series("episodes")[1][-1] == 1501 and not unchanged
    assert past.past is not None and past.past.series("score")[0][-1] == 80100 and past.unchanged
    assert attempts.verdict(second) is None
    verdict = attempts.verdict(last)
    assert verdict is not None and verdict.evidence[0].detection_step == 200100
    watch = Watchdog(empty_store, last, (RULE,))
    assert watch.poll() == verdict


@pytest.mark.parametrize("ended", ["reward_plateau", "expert_collapse"])
def test_a_standstill_that_had_its_verdict_is_not_judged_again(empty_store: Store, ended: str) -> None:
    attempts = Attempts(empty_store)
    first = attempts.play(1, 1901)
    empty_store.end_attempt(first, Verdict(name=ended))
    second = attempts.play(1951, 2101, (first, 1901))
    assert (attempts.verdict(second) is None) is (ended == "reward_plateau")


def test_what_began_from_scratch_has_no_past(empty_store: Store) -> None:
    attempts = Attempts(empty_store)
    run_id = attempts.play(1, 201)
    assert past_of(empty_store, run_id, ["score"]) == (None, False)
    gone = attempts.play(1, 201, ("0" * 32, 100))
    assert past_of(empty_store, gone, ["score"]) == (None, False)
