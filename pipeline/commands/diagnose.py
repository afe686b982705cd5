"""`ladder diagnose`: what each rule says of a history, be it of a run in the store or from a CSV file."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.attempt.file import AttemptFile
from pipeline.attempt.folder import AttemptFolder
from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate, with_overrides
from pipeline.health.history import History
from pipeline.health.monitor import LOGGED_WERE, judge, never_judged, rules_for
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.access import has_store, tracking_root
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun
from pipeline.tracking.store import Store, open_store


@dataclass(frozen=True)
class Case:
    """A history and the rules that judge it."""

    name: str
    """The run's id, or the file's name."""
    title: str
    history: History
    rules: tuple[Rule, ...]
    logged: Collection[str] = ()
    """The names of all metrics of the run; empty: those of the history."""
    recorded: str | None = None
    """The verdict that the run has in the store, if any."""
    ended: bool = True
    """Whether the training has ended as if it had been done."""


def cases_of_file(path: str, overrides: Sequence[str]) -> list[Case]:
    """The history in a CSV file, of a training that has ended, with the default rules as the overrides change them.

    Raises:
        BadInput: there is no such file, or it is no table of metrics.
    """
    config = with_overrides(overrides)
    try:
        history = History.read_csv(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise BadInput(f"{path}: not a table of metrics: {' '.join(str(error).split())}") from error
    return [Case(Path(path).name.split(".")[0], path, history, config.health.build())]


def cases_of_run(run_id: str, overrides: Sequence[str]) -> list[Case]:
    """A run's history, or that of each attempt of an experiment, with its own rules as the overrides change them.

    Raises:
        BadInput: there is no such run.
        InfrastructureFailure: the store is out of reach.
    """
    where = with_overrides(overrides)
    root = tracking_root(where)
    if not has_store(where):
        raise BadInput(f"{run_id}: no such run, and no store under {root} (a CSV file's name ends in .csv)")
    store = open_store(where)
    run = store.run(run_id) or store.find(run_id)  # the first also knows runs of other programs
    attempts: Sequence[LadderRun] = store.attempts(run) if isinstance(run, ExperimentRun) else [run]
    cases = []
    for each in attempts:
        own = _configuration(store, each)
        warm_start = isinstance(each, AttemptRun) and each.warm_start is not None
        rules = rules_for(validate(merge(own, overrides, run_id), run_id).health.build(), warm_start=warm_start)
        names = dict.fromkeys(name for rule in rules for name in rule.reads(each.logged))
        history = store.history(each.run_id, [name for name in names if name in each.logged])
        title = f"{each.name}, run {each.run_id}"
        recorded = each.verdict_name if isinstance(each, AttemptRun) else None
        cases.append(Case(each.run_id, title, history, rules, each.logged, recorded, _has_ended(each)))
    return cases


def _configuration(store: Store, run: LadderRun) -> dict[str, Any]:
    """A run's own configuration: from its artifact, else from its folder; of another program's run, the defaults."""
    if (text := store.read_text(run.run_id, CONFIGURATION)) is not None:
        return dict(yaml.safe_load(text) or {})
    with contextlib.suppress(OSError, ValidationError):  # no such folder on this machine
        return AttemptFile.read(AttemptFolder.of(store.root, run.run_id).file).config.model_dump(mode="json")
    return {}


def _has_ended(run: LadderRun) -> bool:
    """Whether a run's training has ended by itself with exit code 0, or was ended for what its metrics say."""
    if isinstance(run, AttemptRun):
        verdict = run.verdict
        return verdict is not None and (verdict.name in ("healthy", "unfinished") or verdict.is_training_failure)
    return run.status == "FINISHED"


def report(case: Case, console: Console, out: Path | None = None) -> Verdict | None:
    """Returns the verdict, None if no failing rule fired, and prints what each rule found.

    Pictures of the rules that fired go to the folder `out`.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("rule", "verdict", "action", "outcome", "why"):
        table.add_column(column, overflow="fold")
    for rule in case.rules:
        outcome, why, style = _outcome(rule, case, case.logged or case.history.metrics)
        table.add_row(rule.name, rule.verdict, rule.action, outcome, escape(why), style=style)
        for evidence in _found(rule, case)[:1] if out is not None else []:
            assert out is not None
            from pipeline.health.plot import draw  # loads matplotlib

            out.mkdir(parents=True, exist_ok=True)
            draw(case.history, rule, evidence).savefig(out / f"{case.name}-{rule.name}.png")
    console.print(f"[bold]{escape(case.title)}[/]")
    console.print(table)
    verdict = judge(case.history, case.rules, ended=case.ended)
    if verdict is None:
        text = "no failing rule fires"
    else:
        text = f"[bold]{verdict.name}[/] at step {verdict.detection_step}, by {verdict.evidence[0].rule}"
    for name, count in case.history.not_finite().items():
        console.print(f"{escape(name)}: {count} of {len(case.history.series(name)[1])} values are not finite")
    console.print(f"verdict: {text}" + (f" (recorded: {case.recorded})" if case.recorded else ""))
    return verdict


def _found(rule: Rule, case: Case) -> list[Evidence]:
    return rule.firings(case.history) or (rule.at_exit(case.history) if case.ended else [])


def _outcome(rule: Rule, case: Case, logged: Collection[str]) -> tuple[str, str, str | None]:
    """What the rule found, why, and the colour of its line."""
    if why := never_judged(case.history, logged, [rule]):
        return "never judged", why[rule.name].partition(LOGGED_WERE)[0], "dim"
    firings = _found(rule, case)
    if firings:
        again = f", {len(firings)} times" if len(firings) > 1 else ""
        colour = "red" if rule.action == "fail" else "yellow"
        return f"fired at step {firings[0].detection_step}{again}", firings[0].sentence(), colour
    return "quiet", rule.explain(case.history), None
