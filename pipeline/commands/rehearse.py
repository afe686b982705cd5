"""`ladder check` for a trainer of the user's own: every rung starts for some seconds, and a table says what came."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.environment import private_files
from pipeline.config import ExperimentConfig
from pipeline.errors import EXIT_BAD_INPUT, EXIT_HEALTHY, EXIT_INTERRUPTED
from pipeline.experiment.rehearsal import Rehearsal, Rehearsed, Start
from pipeline.foreign.command import takes_checkpoint
from pipeline.foreign.names import Names
from pipeline.health.monitor import LOGGED_WERE
from pipeline.launchers.choose import make_launcher
from pipeline.processes.console import PlainConsole

_COLUMNS = 80
_LISTED = 12
_LOG_LINES = 12
_OVER = "interrupted"


def rehearse(config: ExperimentConfig, seconds: float) -> int:
    """Starts each rung, and prints what came of it. The exit code is that of a rung that does not start or log."""
    private_files()
    console, said = PlainConsole(_COLUMNS), list[str]()
    rungs = len(config.ladder.rungs)
    what = "the rung starts" if rungs == 1 else f"each of {rungs} rungs starts"
    _print(console, f"{what} for {seconds:g} seconds at most, under a temporary tracking root")
    done: list[Rehearsed] = []
    with contextlib.closing(make_launcher(config)) as launcher:
        rehearsal = Rehearsal(config, launcher, seconds, said.append)
        for each in rehearsal.run():
            done.append(each)
            console.print()
            console.print(_table(each))
            _show_log(console, each)
    if rehearsal.asked_to_stop.is_set():
        _print(console, "\ninterrupted: what was started is ended, and the temporary tracking root is removed")
        return EXIT_INTERRUPTED
    console.print()
    for sentence in (*dict.fromkeys(said), *sentences(done, seconds)):
        _print(console, sentence)
    return EXIT_HEALTHY if all(each.start.has_logged for each in done) else EXIT_BAD_INPUT


def _print(console: Console, sentence: str) -> None:
    console.print(Text(sentence))


def _table(each: Rehearsed) -> Table:
    """What came of one rung."""
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    table.add_column("rung", no_wrap=True, min_width=12)
    table.add_column(Text(each.rung), overflow="fold")
    for name, text in (
        ("start", _how_it_went(each.start)),
        ("metrics", _metrics(each)),
        ("not judged", ", ".join(each.start.unjudged) or "–"),
        ("checkpoints", _checkpoints(each)),
        ("restart", _restart(each)),
    ):
        table.add_row(name, Text(text))
    return table


def _how_it_went(start: Start) -> str:
    first = "" if start.first_after is None else f"first metric after {start.first_after:.1f} s, "
    lasted = f"{start.seconds:.1f} s"
    if start.verdict.name == _OVER:
        return f"{'yes' if start.has_logged else 'NO METRIC'}: {first}ended in order after {lasted}"
    if start.verdict.name == "healthy":
        return f"yes: {first}came to its end in {lasted}"
    if not start.has_failed:
        return f"yes: {first}a rule ended it after {lasted}: {start.verdict.sentence}"
    return (
        f"NO: {start.verdict.sentence} (after {lasted})"
        if not start.has_logged
        else (f"yes, but: {first}then {start.verdict.sentence}, after {lasted}")
    )


def _metrics(each: Rehearsed) -> str:
    start = each.start
    if start.steps is None:
        return "none"
    known = {source.metric: name for name, source in Names.of(each.config).sources.items() if not source.weak}
    shown = [f"{name} ({known[name]})" if name in known else name for name in start.metrics]
    values, (first, last) = max(start.metrics.values()), start.steps
    return f"{len(shown)}: {_listed(shown)}; up to {values} values, steps {first} – {last}"


def _checkpoints(each: Rehearsed) -> str:
    found = each.start.checkpoints
    if not found:
        return "none" if each.config.trainer.checkpoints is not None else "none (trainer.checkpoints names none)"
    newest = found[-1]
    return f"{len(found)}: the newest of step {newest.step}, {Path(newest.path).name}"


def _restart(each: Rehearsed) -> str:
    restart, source = each.restart, each.source
    if restart is None or source is None:
        return "–" if takes_checkpoint(each.config) else "NO: the command has no {checkpoint}"
    of = "" if source[0] == each.rung else f" of {source[0]}"
    begin = f"from step {source[1].step}{of}: "
    if restart.steps is None:
        return f"NO: {begin}{_how_it_went(restart).removeprefix('NO: ')}"
    first = f"its first metric has step {restart.steps[0]}"
    if each.goes_on is None:
        return f"perhaps: {begin}{first}, as without it"
    return f"yes: {begin}{first}" if each.goes_on else f"NO: {begin}{first}, so its steps begin anew"


def _show_log(console: Console, each: Rehearsed) -> None:
    """The last lines of what failed."""
    for name, start in (("start", each.start), ("restart", each.restart)):
        if start is None or not start.has_failed:
            continue
        lines = [line for line in start.log if line.strip()][-_LOG_LINES:]
        _print(console, f"the last lines of the {name}'s log:" if lines else f"the {name} has printed nothing")
        for line in lines:
            console.print(Text(f"  {line}"), soft_wrap=True)


def sentences(done: Sequence[Rehearsed], seconds: float) -> Iterable[str]:
    """What follows from the tables, a sentence each."""
    started = [each for each in done if each.start.has_logged]
    yield f"{len(started)} of {len(done)} rungs start and log"
    if any(each.start.verdict.name == _OVER and not each.start.has_logged for each in done):
        yield f"nothing was logged within {seconds:g} seconds: a script that prepares for long needs more (--seconds)"
    for key, why in {name: why for each in started for name, why in each.unnamed.items()}.items():
        yield f"trainer.names.{key}: {why}"
    for why, rules in _unjudged(started).items():
        yield f"not judged so far: {', '.join(rules)}: {why}"
    for problem in dict.fromkeys(problem for each in done for problem in each.start.problems):
        yield f"checkpoint passed over: {problem}"
    if started and not any(each.start.checkpoints for each in started):
        yield "without a checkpoint, each attempt begins from scratch"
    elif any(each.goes_on is False for each in started):
        yield "a restart whose steps begin anew does not load its checkpoint, or does not count on from it"


def _unjudged(done: Sequence[Rehearsed]) -> dict[str, list[str]]:
    """Why → the rules that no rung could judge for that reason, or that some could not."""
    found: defaultdict[str, dict[str, set[str]]] = defaultdict(dict)
    for each in done:
        for rule, why in each.start.unjudged.items():
            found[why.partition(LOGGED_WERE)[0]].setdefault(rule, set()).add(each.rung)
    return {
        why: [
            rule if len(rungs) == len(done) else f"{rule} ({', '.join(sorted(rungs))})" for rule, rungs in rules.items()
        ]
        for why, rules in found.items()
    }


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
