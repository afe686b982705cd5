"""Trainers that an engine takes away: how often that is borne, and what follows on the ladder."""

from __future__ import annotations

from pipeline.experiment.conclude import elsewhere_ended, interrupted, taken_away, was_taken_away
from pipeline.experiment.losses import Losses
from pipeline.experiment.queue import Queue
from pipeline.health.verdict import Verdict
from pipeline.launchers.exit import Exit


def test_so_many_without_progress_and_then_a_crash() -> None:
    losses, taken = Losses(2), taken_away("preempted")
    assert [losses.judged(taken, step).name for step in (-1, -1, -1)] == ["interrupted", "interrupted", "crash"]
    assert losses.judged(taken, -1).name == "interrupted"  # the retry has as many again


def test_progress_lets_it_count_anew() -> None:
    losses, taken = Losses(1), taken_away("preempted")
    assert [losses.judged(taken, step).name for step in (10, 20, 30, 30)] == [*["interrupted"] * 3, "crash"]


def test_a_step_behind_the_newest_is_no_progress() -> None:
    losses, taken = Losses(1), taken_away("preempted")
    assert [losses.judged(taken, step).name for step in (30, 10)] == ["interrupted", "crash"]


def test_none_is_borne() -> None:
    assert Losses(0).judged(taken_away("its node was lost"), 10).name == "crash"


def test_other_verdicts_stand() -> None:
    losses = Losses(1)
    for verdict in (Verdict(name="healthy"), Verdict(name="crash"), interrupted("asked to stop")):
        assert losses.judged(verdict, -1) is verdict


def test_taken_away_and_cancelled_are_told_apart() -> None:
    taken = elsewhere_ended(Exit(code=0, taken="slurm job 7: preempted"))
    assert taken is not None and was_taken_away(taken) and taken.sentence == "taken away: slurm job 7: preempted"
    cancelled = elsewhere_ended(Exit(code=-15, cancelled="slurm job 7 was cancelled"))
    assert cancelled is not None and cancelled.name == "interrupted" and not was_taken_away(cancelled)
    assert elsewhere_ended(Exit(code=1)) is None


def test_time_in_a_queue() -> None:
    queue = Queue()
    queue.note(False)
    assert queue.seconds == 0
    queue.note(True)
    queue.note(True)
    assert queue.seconds > 0
    queue.note(False)
    before = queue.seconds
    assert before == queue.last == queue.seconds
