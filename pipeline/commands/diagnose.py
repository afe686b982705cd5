"""`ladder diagnose`: what each rule would say of a history, from a run in the store or from a CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import BadInput
from pipeline.experiment_file import merge, validate, with_overrides
from pipeline.health.history import History
from pipeline.health.monitor import judge
from pipeline.health.rules import AnyRule, Rule
from pipeline.health.verdict import Verdict
from pipeline.tracking.access import has_store, tracking_root, tracking_uri
from pipeline.tracking.artifacts import CONFIGURATION
from pipeline.tracking.runs import AttemptRun, ExperimentRun, LadderRun
from pipeline.tracking.store import Store


@dataclass(frozen=True)
class Case:
    """A history to be judged, by the rules in force."""

    name: str
    """The run's id, or the file's name."""
    title: str
    history: History
    rules: tuple[AnyRule, ...]
    recorded: str | None = None
    """The verdict that the run has in the store, if any."""


def cases_of_file(path: str, overrides: Sequence[str]) -> list[Case]:
    """The history in a CSV file, by the default rules or those that the overrides name.

    Raises:
        BadInput: no such file, or no such table.
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
    """A run's history, or those of all attempts of an experiment, each by its own rules or those of the overrides.

    Raises:
        BadInput: no such run.
        InfrastructureFailure: the store is out of reach.
    """
    where = with_overrides(overrides)
    root = tracking_root(where)
    if not has_store(where):
        raise BadInput(f"{run_id}: no such run, and no store under {root} (a CSV file's name ends in .csv)")
    store = Store(tracking_uri(where), root)
    run = store.run(run_id) or store.find(run_id)  # the first also knows runs of other programs
    attempts: Sequence[LadderRun] = store.attempts(run) if isinstance(run, ExperimentRun) else [run]
    cases = []
    for each in attempts:
        own = yaml.safe_load(store.read_text(each.run_id, CONFIGURATION) or "{}")
        rules = validate(merge(own, overrides, run_id), run_id).health.build()
        names = dict.fromkeys(name for rule in rules for name in rule.metrics)
        history = store.history(each.run_id, [name for name in names if name in each.metrics])
        title = f"{each.name}, run {each.run_id}"
        recorded = each.verdict_name if isinstance(each, AttemptRun) else None
        cases.append(Case(each.run_id, title, history, rules, recorded))
    return cases


def report(case: Case, console: Console, out: Path | None = None) -> Verdict | None:
    """Prints when each rule would have fired and why; pictures of what fired go to the folder `out`.

    Returns the verdict, None if no failing rule fired.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("rule", "verdict", "action", "outcome", "why"):
        table.add_column(column, overflow="fold")
    for rule in case.rules:
        outcome, why, style = _outcome(rule, case.history)
        table.add_row(rule.name, rule.verdict, rule.action, outcome, escape(why), style=style)
        for evidence in rule.firings(case.history)[:1] if out is not None else []:
            assert out is not None
            from pipeline.health.plot import draw  # loads matplotlib

            out.mkdir(parents=True, exist_ok=True)
            draw(case.history, rule, evidence).savefig(out / f"{case.name}-{rule.name}.png")
    console.print(f"[bold]{escape(case.title)}[/]")
    console.print(table)
    verdict = judge(case.history, case.rules)
    if verdict is None:
        text = "no failing rule fires"
    else:
        text = f"[bold]{verdict.name}[/] at step {verdict.evidence[0].detection_step}, by {verdict.evidence[0].rule}"
    console.print(f"verdict: {text}" + (f" (recorded: {case.recorded})" if case.recorded else ""))
    return verdict


def _outcome(rule: AnyRule, history: History) -> tuple[str, str, str | None]:
    """What happened, why, and how the line is coloured."""
    missing = [metric for metric in rule.metrics if metric not in history]
    if missing:
        return "not measured", f"{', '.join(missing)} was never logged", "dim"
    firings = rule.firings(history)
    if firings:
        again = f", {len(firings)} times" if len(firings) > 1 else ""
        colour = "red" if rule.action == "fail" else "yellow"
        return f"fired at step {firings[0].detection_step}{again}", firings[0].sentence(), colour
    if isinstance(rule, Rule):
        closest = rule.closest(history)
        if closest is None:
            return "quiet", f"the history ends in the grace period of {rule.grace} updates", None
        first = rule.conditions[0]
        values = history.series(first.metric)[1]
        extremes = f"{values.min():.3g} – {values.max():.3g}"
        reached = f"at most {closest[0]} of {rule.window} updates, fires at {rule.patience}"
        return "quiet", f"{first.metric} {extremes}, {first.threshold()} counts; {reached}", None
    return "quiet", "never certain that the gain is small", None
