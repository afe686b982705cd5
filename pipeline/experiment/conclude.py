"""The end of an attempt: its verdict, and how it is written down for good.

First on the attempt's own disk (`ending.json`), then in the store, the run's status last. A run that is not RUNNING has
everything; for one that still is, the next orchestrator writes down what is missing.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.attempt.checkpoint_files import Checkpoint
from pipeline.attempt.ending import Ending
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import Spool
from pipeline.errors import DiskFull
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.exit import Exit, end_of
from pipeline.tracking import tags
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger("ladder")


def conclude(
    store: Store,
    run_id: str,
    ending: Ending,
    rules: tuple[Rule, ...],
    checkpoints: tuple[Checkpoint, ...],
    describe: Callable[[Watchdog], str] = lambda _: "",
) -> tuple[Watchdog, list[Evidence]]:
    """Tells the store of an ending, and all that it does not have yet; the same once more changes nothing.

    `describe` says in a line what the attempt came to, for the run's note.

    Returns the run's latest metrics, and the warnings.
    """
    folder = AttemptFolder.of(store.root, run_id)
    spool = Spool(folder.path)
    store.deliver(run_id, spool)
    watch = Watchdog(store, run_id, rules)
    _, warnings = watch.final(ended=ending.verdict.name == "healthy")
    store.log_metrics(run_id, {"cost/seconds": ending.seconds}, step=max(0, watch.last_step), at=ending.at)
    if warnings:
        text = json.dumps([each.model_dump(mode="json", exclude={"values", "detail"}) for each in warnings])
        store.set_tags(run_id, {tags.WARNINGS: text})
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
    if newest is not None and ending.verdict.name == "healthy":
        store.log_file(run_id, Path(newest.path), "policy")
        store.set_tags(run_id, {tags.POLICY: newest.path})
    with contextlib.suppress(DiskFull):  # the log is on that disk already, and a picture can be drawn again
        for name, figure in pictures(watch, (*ending.verdict.evidence, *warnings)):
            store.log_figure(run_id, figure, f"evidence/{name}.png")
        if log := end_of(folder.log):
            store.log_text(run_id, log, "trainer.log")
    store.end_attempt(run_id, ending.verdict, describe(watch))
    if ending.verdict.name != "interrupted":  # that one may go on, and must know what it has reported
        spool.remove()
    return watch, warnings


def pictures(watch: Watchdog, findings: Iterable[Evidence]) -> Iterator[tuple[str, Figure]]:
    """A picture of each rule that fired, by its name; one that cannot be drawn ends nothing."""
    rules = {rule.name: rule for rule in watch.rules}
    for each in findings:
        if each.rule not in rules:
            continue  # a crash, a hang: its evidence is the log
        from pipeline.health.plot import draw  # loads matplotlib, which a healthy experiment never needs

        try:
            yield each.rule, draw(watch.history([rules[each.rule]]), rules[each.rule], each)
        except (ValueError, ArithmeticError) as error:
            _log.warning("no picture of %s: %s", each.rule, error)


def verdict_at_exit(ended: Exit, *, logged: bool) -> Verdict:
    """The verdict of a process that has ended by itself and broken no rule.

    Args:
        logged: whether it has logged any metric at all.
    """
    if ended.code == 0 and logged:
        return Verdict(name="healthy")
    detail = ended.detail
    if ended.code == 0:
        detail = {**detail, "but": "not a single metric was logged"}
    last_line = {"last line": ended.log_tail[-1]} if ended.log_tail else {}
    evidence = Evidence(rule="exit", detail={**detail, **last_line, "log_tail": list(ended.log_tail)})
    return Verdict(name="out_of_memory" if ended.out_of_memory else "crash", evidence=(evidence,))


def interrupted(reason: str) -> Verdict:
    """The verdict of an attempt that a person, a budget, or a store that is gone has ended."""
    return Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail={"reason": reason}),))
