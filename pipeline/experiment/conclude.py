"""The end of an attempt: its verdict, and how it is written down for good.

First on the attempt's own disk (`ending.json`), then in the store, the run's status last. A run that is not RUNNING has
everything; for one that still is, the next orchestrator writes down what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.attempt.checkpoint_files import Checkpoint, newest
from pipeline.attempt.ending import Ending
from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.remarks import remarks
from pipeline.attempt.spool import Spool
from pipeline.attempt.start import START, failed_start
from pipeline.compare.scores import NO_QUALITY, Quality, quality_of
from pipeline.experiment.cost import log_cost
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.history import History
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.launchers.cause import SILENT, cause_of, may_pass
from pipeline.launchers.exit import Exit, end_of
from pipeline.tracking import tags
from pipeline.tracking.patience import answer_of
from pipeline.tracking.runs import AttemptRun
from pipeline.tracking.serialise import warnings_tag
from pipeline.tracking.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger("ladder")
_PICTURES_SECONDS = 30.0
"""For all pictures of an attempt together."""
_TAKEN = "taken"
"""The rule of the evidence of what an engine has taken away."""
_DRAWING = threading.Lock()
"""Matplotlib's fonts and formulas are not made for several threads, and several experiments may run at a time."""
_NAMED = 5
"""Nested runs that a sentence names."""


class Concluded(NamedTuple):
    """What an attempt came to."""

    watch: Watchdog
    """With the run's latest metrics."""
    warnings: tuple[Evidence, ...]
    untold: tuple[Evidence, ...]
    """Those of the warnings that the run did not have before: what arose while it ran was told then."""
    quality: Quality


def conclude(
    store: Store,
    run_id: str,
    ending: Ending,
    rules: tuple[Rule, ...],
    checkpoints: tuple[Checkpoint, ...],
    describe: Callable[[Watchdog, Quality], str] = lambda *_: "",
    chosen: tuple[Rule, ...] = (),
) -> Concluded:
    """Tells the store of an ending, and all that it does not have yet; the same once more changes nothing.

    Files decide over nothing: one that cannot be uploaded is said, and the verdict stands.

    `describe` says in a line what the attempt came to, for the run's note. `chosen`: the rules of which the user is
    warned if they were never judged, where the attempt has run long enough to tell.
    """
    folder = AttemptFolder.of(store.root, run_id)
    spool = Spool(folder.path)
    store.deliver(run_id, spool, ended=True)
    watch = Watchdog(store, run_id, rules, chosen=chosen)
    _, fired = watch.final(ended=ending.verdict.name == "healthy")  # of what failed, its verdict says enough
    log_cost(store, run_id, ending)
    unjudged, unmet = {}, {}
    if ending.verdict.name == "healthy" or ending.verdict.is_training_failure:
        unjudged, unmet = watch.never_judged(), watch.never_met()
    warnings = [
        *(Evidence(rule=name, detail={"reason": f"was never judged: {why}"}) for name, why in unjudged.items()),
        *(Evidence(rule=key, detail={"reason": why}) for key, why in unmet.items()),
        *remarks(folder),
        *fired,
    ]
    run = store.run(run_id)
    told = {_subject(each) for each in run.warnings} if isinstance(run, AttemptRun) else set()
    if warnings or told:
        store.set_tags(run_id, {tags.WARNINGS: warnings_tag(warnings)})
    quality = quality_of(store, run) if isinstance(run, AttemptRun) else NO_QUALITY
    store.set_tags(run_id, {tags.QUALITY: quality.name, **({tags.SCORE: said} if (said := quality.sentence) else {})})
    if checkpoints and ending.verdict.name == "healthy":
        policy = newest(checkpoints).path
        store.log_file(run_id, Path(policy), "policy")
        store.set_tags(run_id, {tags.POLICY: policy})
    for name, figure in pictures(watch, (*ending.verdict.evidence, *fired)):
        store.log_figure(run_id, figure, f"evidence/{name}.png")
    if log := end_of(folder.log):
        store.log_text(run_id, log, "trainer.log")
    if left := store.end_children(run_id, ending.verdict.name):
        store.tell(f"run {run_id}: {_nested(left)} left RUNNING by the trainer, ended with it as {ending.verdict.name}")
    store.end_attempt(run_id, ending.verdict, describe(watch, quality))
    if ending.verdict.name != "interrupted":  # that one may go on, and must know what it has reported
        spool.remove()
    untold = tuple(each for each in warnings if _subject(each) not in told)
    return Concluded(watch, tuple(warnings), untold, quality)


def _subject(warning: Evidence) -> tuple[str, str | None, str | None]:
    """What a warning is about, whenever it was found."""
    return warning.rule, warning.metric, warning.detail.get("reason")


def _nested(names: Sequence[str]) -> str:
    """The runs of these names in words."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"nested run{'s' * (len(names) > 1)} {', '.join(names[:_NAMED])}{more}"


def pictures(watch: Watchdog, findings: Iterable[Evidence]) -> Iterator[tuple[str, Figure]]:
    """A picture of each rule that fired, by its name; one that cannot be drawn, or not soon, ends nothing."""
    rules = {rule.name: rule for rule in watch.rules}
    until = time.monotonic() + _PICTURES_SECONDS
    for each in findings:
        if each.rule not in rules:
            continue  # a crash, a hang: its evidence is the log
        history = watch.history([rules[each.rule]])
        try:
            figure = answer_of(partial(_picture, history, rules[each.rule], each), max(0.0, until - time.monotonic()))
        except Exception as error:
            _log.warning("no picture of %s: %s", each.rule, error)
        else:
            yield each.rule, figure


def _picture(history: History, rule: Rule, finding: Evidence) -> Figure:
    from pipeline.health.plot import draw  # loads matplotlib, which a healthy experiment never needs

    with _DRAWING:
        figure = draw(history, rule, finding)
        figure.draw_without_rendering()  # finds what cannot be drawn, such as a formula in a title
    return figure


def verdict_of(file: AttemptFile, ended: Exit, watchdog: Watchdog) -> Verdict:
    """The verdict of a trainer that has ended. What its metrics say comes before how the process ended.

    `watchdog`: of its run, which has all metrics. It waits for a store that is away.
    """
    if ended.refused is not None:
        return never_started(f"trainer.command: {ended.refused}")
    away = elsewhere_ended(ended)
    verdict, _ = watchdog.final(ended=ended.code == 0 and away is None)
    last = max(0, watchdog.last_step)
    if verdict is not None and ended.code == 0 and verdict.is_training_failure:
        return verdict.after_its_end(last)
    if verdict is not None:
        return with_exit(verdict, ended, last)
    if away is not None:
        return away
    broken = watchdog.broken_at_death(of_names=ended.said.of_names) if ended.by_itself else None
    scratch = file.warm_start is None and file.resume_from is None
    return verdict_at_exit(ended, logged=watchdog.has_logged, scratch=scratch, last_step=last, broken=broken)


def verdict_at_exit(
    ended: Exit, *, logged: bool, scratch: bool = True, last_step: int | None = None, broken: Evidence | None = None
) -> Verdict:
    """The verdict of a process that has ended by itself and broken no rule.

    Args:
        logged: whether it has logged any metric at all.
        scratch: whether it started from scratch; a checkpoint may be the cause of its end.
        last_step: the step of its newest metrics.
        broken: the metric that was no number any more when it died.
    """
    if ended.code == 0 and logged:
        return Verdict(name="healthy")
    if ended.by_itself and (broken is not None or ended.said.of_nan(in_training=logged)):
        said = _exit(ended, last_step if logged else None)
        return Verdict(name="numerical_instability", evidence=(said,) if broken is None else (broken, said))
    tail = ended.said.essential
    rule, cause = "exit", None
    if not logged and not ended.disk_full and not ended.was_killed and not may_pass(tail):
        rule = START
        cause = SILENT if ended.code == 0 else cause_of(ended.code, tail)
    detail = _details(ended) if cause is None else ended.detail | _last_line(ended)
    if cause is not None:
        detail = {"cause": cause.words, "certain": cause.certain and (scratch or ended.code != 0), **detail}
    evidence = Evidence(rule=rule, detail={**detail, "log_tail": list(ended.log_tail)})
    return Verdict(name="out_of_memory" if ended.out_of_memory else "crash", evidence=(evidence,))


def with_exit(verdict: Verdict, ended: Exit, last_step: int) -> Verdict:
    """The verdict of a rule, with how the process ended beside its evidence, if it has died of an error."""
    if not verdict.is_training_failure or not ended.by_itself:
        return verdict
    return verdict.model_copy(update={"evidence": (*verdict.evidence, _exit(ended, last_step))})


def _exit(ended: Exit, last_step: int | None) -> Evidence:
    """The end of a training that its numbers have ended: what was saved before its newest metrics may be good."""
    detail = {**_details(ended), "log_tail": list(ended.log_tail)}
    return Evidence(rule="exit", last_good_step=last_step, detection_step=last_step, detail=detail)


def _details(ended: Exit) -> dict[str, Any]:
    """How a process has ended, and the line that says why; if it has died of an error and printed none, that."""
    silent = {"reason": "no exception was printed"} if ended.by_itself and not ended.said.names_error else {}
    return ended.detail | silent | _last_line(ended)


def _last_line(ended: Exit) -> dict[str, Any]:
    return {} if ended.said.line is None else {"last line": ended.said.line}


def never_started(cause: str) -> Verdict:
    """The verdict of a trainer whose command cannot be executed."""
    return Verdict(name="crash", evidence=(failed_start({"cause": cause, "certain": True}),))


def interrupted(reason: str) -> Verdict:
    """The verdict of an attempt that a person, a budget, or a store that is gone has ended."""
    return Verdict(name="interrupted", evidence=(Evidence(rule="interrupted", detail={"reason": reason}),))


def taken_away(reason: str) -> Verdict:
    """The verdict of an attempt whose engine has taken its trainer away: it goes on from its last checkpoint."""
    return Verdict(name="interrupted", evidence=(Evidence(rule=_TAKEN, detail={"reason": f"taken away: {reason}"}),))


def elsewhere_ended(ended: Exit) -> Verdict | None:
    """The verdict of a trainer that an engine has taken away, or that a person has cancelled there; None: neither."""
    if ended.taken is not None:
        return taken_away(ended.taken)
    return None if ended.cancelled is None else interrupted(ended.cancelled)


def was_taken_away(verdict: Verdict) -> bool:
    """Whether that is the verdict."""
    return verdict.name == "interrupted" and any(each.rule == _TAKEN for each in verdict.evidence)
