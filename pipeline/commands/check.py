"""`ladder check`: the brief's pre-flight checklist for an experiment."""

from __future__ import annotations

from rich.table import Table

from fallbacks.ladder import Ladder
from pipeline.commands.environment import make_console
from pipeline.config import ExperimentConfig
from pipeline.errors import EXIT_BAD_INPUT, EXIT_HEALTHY
from pipeline.launchers.gpu import require_device
from pipeline.preflight import preflight, too_short


def check(config: ExperimentConfig) -> int:
    """Prints the pre-flight checklist; fails where an item is not true."""
    require_device([config])
    first = Ladder(config).configs[0]
    items = preflight(first)
    table = Table(box=None, pad_edge=False)
    for column in ("", "item", "this experiment", "where"):
        table.add_column(column)
    for item in items:
        mark = "[green]yes[/]" if item.true else "[red]NO[/]"
        table.add_row(mark, item.name, item.configured, item.where, style=None if item.true else "bold")
    console = make_console()
    console.print(table)
    failed = sum(not item.true for item in items)
    console.print(f"{len(items) - failed} of {len(items)} items true")
    if rules := too_short(first):
        console.print(f"too short to tell that the score stands still, by the rules: {rules}", soft_wrap=True)
    return EXIT_BAD_INPUT if failed else EXIT_HEALTHY
