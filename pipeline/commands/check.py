"""`ladder check`: the brief's pre-flight checklist for an experiment."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from pipeline.commands.environment import make_console, private_files
from pipeline.config import ExperimentConfig
from pipeline.errors import EXIT_BAD_INPUT, EXIT_HEALTHY
from pipeline.launchers.gpu import require_device
from pipeline.preflight import CHECKLIST, accepted, not_accepted, own_first, preflight, too_short


def check(config: ExperimentConfig) -> int:
    """Prints the pre-flight checklist; fails where an item is not true."""
    require_device([config])
    cluster = check_cluster(config)
    first = own_first(config)
    items = preflight(first)
    on_purpose = accepted(config)
    table = Table(box=None, pad_edge=False)
    for column in ("", "item", "this experiment", "where"):
        table.add_column(column)
    for item in items:
        mark = "[green]yes[/]" if item.true else "[yellow]NO, accepted[/]" if item.key in on_purpose else "[red]NO[/]"
        table.add_row(mark, item.name, item.configured, item.where, style=None if item.true else "bold")
    console = make_console()
    console.print(table)
    true = [item.true for item in items]
    console.print(
        f"{sum(true[:CHECKLIST])} of {CHECKLIST} items true, "
        f"and {sum(true[CHECKLIST:])} of {len(items) - CHECKLIST} of the brief's further remedies"
    )
    if config.ladder.compares:
        start = "from one checkpoint of the first" if config.ladder.warm_start else "from scratch"
        console.print(f"each of {len(config.ladder.rungs)} rungs is trained to its end, {start}, without remedies")
    if not_accepted(config):
        console.print("`ladder run` refuses this experiment: an item differs that preflight.accept does not name")
    if rules := too_short(first):
        console.print(f"too short to tell that the score stands still, by the rules: {rules}", soft_wrap=True)
    return EXIT_HEALTHY if all(true) and cluster else EXIT_BAD_INPUT


def check_cluster(config: ExperimentConfig) -> bool:
    """Asks the cluster of an experiment, and prints what it says. Returns whether an experiment can run there."""
    if config.launcher.kind == "local":
        return True
    from pipeline.commands.cluster import ask_cluster  # loads MLflow

    console, good = make_console(), True
    private_files()
    for finding in ask_cluster(config):
        mark = {True: "[green]yes[/]", False: "[red]NO[/]", None: "[yellow]?[/]"}[finding.good]
        console.print(f"{mark} {finding.what}: {escape(finding.words)}", soft_wrap=True)
        good = good and finding.good is not False
    return good
