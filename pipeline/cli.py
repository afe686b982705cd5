"""The command line: `ladder run | tune | check | status`."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fallbacks.ladder import Ladder
from pipeline.config import ExperimentConfig
from pipeline.errors import (
    EXIT_BAD_INPUT,
    EXIT_EXHAUSTED,
    EXIT_HEALTHY,
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    BadInput,
    InfrastructureFailure,
)
from pipeline.load import load_experiment, merge, validate
from pipeline.preflight import preflight

EXIT_OF_OUTCOME = {"healthy": EXIT_HEALTHY, "exhausted": EXIT_EXHAUSTED, "interrupted": EXIT_INTERRUPTED}


def run(config: ExperimentConfig) -> int:
    """Runs an experiment down its ladder."""
    # Imported here: MLflow takes seconds, and bad input should not.
    from pipeline.display import Display
    from pipeline.launchers.local import LocalLauncher
    from pipeline.orchestrator import Orchestrator
    from pipeline.tracking import Store, tracking_root, tracking_uri

    store = Store(tracking_uri(config), tracking_root(config))
    end = Orchestrator(config, store, LocalLauncher(), Display()).run()
    return EXIT_OF_OUTCOME[end.outcome]


def tune(path: str, overrides: Sequence[str], validate_on: int | None) -> int:
    """Tunes the coefficients that a study names, or validates the best of them on fresh seeds."""
    from pipeline.study import load_study

    plan = load_study(path, overrides)
    if validate_on is not None and validate_on < 2:
        raise BadInput(f"--validate: two fresh seeds at least, not {validate_on}")
    from pipeline.tuning.display import StudyDisplay
    from pipeline.tuning.tune import Tuning

    tuning = Tuning(plan, StudyDisplay())
    return tuning.tune() if validate_on is None else tuning.validate(validate_on)


def check(config: ExperimentConfig) -> int:
    """Prints the pre-flight checklist; fails where an item is not true."""
    items = preflight(Ladder(config).configs[0])
    table = Table(box=None, pad_edge=False)
    for column in ("", "item", "this experiment", "where"):
        table.add_column(column)
    for item in items:
        mark = "[green]yes[/]" if item.true else "[red]NO[/]"
        table.add_row(mark, item.name, item.configured, item.where, style=None if item.true else "bold")
    console = _console()
    console.print(table)
    failed = sum(not item.true for item in items)
    console.print(f"{len(items) - failed} of {len(items)} items true")
    return EXIT_BAD_INPUT if failed else EXIT_HEALTHY


def status(config: ExperimentConfig) -> int:
    """Prints the experiments of the store with their attempts, newest first."""
    from pipeline.tracking import URI_VARIABLE, Store, tracking_root, tracking_uri

    root = tracking_root(config)
    if not (os.environ.get(URI_VARIABLE) or config.tracking.uri or (root / "mlflow.db").exists()):
        print(f"no experiments yet under {root}")
        return EXIT_HEALTHY
    store = Store(tracking_uri(config), root)
    table = Table(box=None, pad_edge=False)
    for column in ("experiment / attempt", "status", "verdict", "episodes", "score", "from", "run"):
        table.add_column(column, overflow="fold")
    for experiment, runs in store.experiments():
        for parent in (each for each in runs if each.data.tags["ladder.kind"] in ("experiment", "study")):
            tags = parent.data.tags
            table.add_row(
                f"[bold]{escape(experiment.name)}[/]",
                parent.info.status,
                tags.get("ladder.outcome", "–"),
                "",
                "",
                "",
                parent.info.run_id,
            )
            nested = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
            attempts = [each for each in nested if each.data.tags["ladder.kind"] == "attempt"]  # a study has trials
            for each in sorted(attempts, key=lambda one: int(one.data.tags["ladder.attempt"])):
                tags, metrics = each.data.tags, each.data.metrics
                score = metrics.get("score_window")
                table.add_row(
                    f"  {tags['ladder.attempt']} {tags['ladder.rung']}",
                    each.info.status,
                    tags.get("ladder.verdict", "–"),
                    f"{metrics.get('episodes', 0):.0f}",
                    "–" if score is None else f"{score:.1f}",
                    _source(tags["ladder.warm_start"]),
                    each.info.run_id,
                )
    _console().print(table)
    return EXIT_HEALTHY


def _source(warm_start: str) -> str:
    """The tag `ladder.warm_start` in words."""
    if warm_start == "scratch":
        return warm_start
    start = json.loads(warm_start)
    return f"episode {start['episode']} of {start['run_id'][:8]}"


def _console() -> Console:
    """As wide as the terminal; in a pipe wide enough that nothing is cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (ladder --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ladder", description="Unattended training with a fallback ladder.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run an experiment down its ladder"),
        ("check", "go through the pre-flight checklist for an experiment"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("experiment", help="a YAML file, such as experiments/quickstart.yaml")
        command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="replace values of the file")
    text = "tune the coefficients that a study names; again: go on with it"
    command = commands.add_parser("tune", help=text, description=text)
    command.add_argument("study", help="a YAML file, such as experiments/study.yaml")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="replace values of the file")
    text = "instead: rerun the best trial and the default on N fresh seeds, and say whether the gain is real"
    command.add_argument("--validate", type=int, metavar="N", help=text)
    command = commands.add_parser("status", help="experiments and attempts, newest first")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α must not end a night's run
    try:
        parser = _parser()
        parsed, rest = parser.parse_known_args(arguments)
        if any(word.startswith("-") for word in rest):
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parsed.overrides += rest  # what stands behind an option, argparse leaves
        if parsed.command == "status":
            return status(validate(merge({}, parsed.overrides, "overrides"), "overrides"))
        if parsed.command == "tune":
            return tune(parsed.study, parsed.overrides, parsed.validate)
        config = load_experiment(parsed.experiment, parsed.overrides)
        return run(config) if parsed.command == "run" else check(config)
    except BadInput as error:
        print(f"ladder: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (InfrastructureFailure, OSError) as error:
        print(f"ladder: {error}", file=sys.stderr)
        return EXIT_INFRASTRUCTURE
    except KeyboardInterrupt:  # before anything was started
        print("ladder: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
