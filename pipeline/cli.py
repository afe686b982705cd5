"""The command line: `ladder run | resume | check | status`."""

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
from pipeline.patience import leave
from pipeline.preflight import preflight
from pipeline.signals import interruptible

EXIT_OF_OUTCOME = {"healthy": EXIT_HEALTHY, "exhausted": EXIT_EXHAUSTED, "interrupted": EXIT_INTERRUPTED}


def run(config: ExperimentConfig) -> int:
    """Runs an experiment down its ladder."""
    # Imported here: MLflow takes seconds, and bad input should not.
    from pipeline.display import Display
    from pipeline.launchers.local import LocalLauncher
    from pipeline.orchestrator import Orchestrator
    from pipeline.recovery import reconcile
    from pipeline.tracking import Store, tracking_root, tracking_uri

    private_files()
    store, launcher, display = Store(tracking_uri(config), tracking_root(config)), LocalLauncher(), Display()
    reconcile(store, launcher, display.say)
    end = Orchestrator(config, store, launcher, display).run()
    return leave(EXIT_OF_OUTCOME[end.outcome])


def resume(words: Sequence[str]) -> int:
    """Goes on with an experiment that was cut off: of the parent run that is named, or the newest unfinished one."""
    named = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    for word in overrides:
        if not word.startswith(("tracking.", "budget.")):
            raise BadInput(f"{word}: an experiment goes on as it began; only tracking.… and budget.… can be given here")
    if len(named) > 1:
        raise BadInput(f"{' '.join(named)}: one experiment at a time")
    here = validate(merge({}, overrides, "overrides"), "overrides")

    from pipeline.display import Display
    from pipeline.launchers.local import LocalLauncher
    from pipeline.orchestrator import Orchestrator
    from pipeline.recovery import reconcile, take_up
    from pipeline.tracking import Store, tracking_root, tracking_uri

    if not _has_store(here):
        raise BadInput(f"tracking.root: nothing to resume, there are no experiments under {tracking_root(here)}")
    private_files()
    store, launcher, display = Store(tracking_uri(here), tracking_root(here)), LocalLauncher(), Display()

    def adapted(config: ExperimentConfig) -> ExperimentConfig:
        data = config.model_dump(mode="json") | {"tracking": here.tracking.model_dump(mode="json")}
        budget = [word for word in overrides if word.startswith("budget.")]
        return validate(merge(data, budget, "overrides"), "overrides")

    past = take_up(store, launcher, named[0] if named else None, adapted)
    if past.seconds > 3600 * (hours := past.config.budget.hours):
        past.lock.release()
        raise BadInput(f"budget.hours: {hours:g} are spent; give it more: ladder resume {past.parent} budget.hours=…")
    reconcile(store, launcher, display.say)
    end = Orchestrator(past.config, store, launcher, display).run(past)
    return leave(EXIT_OF_OUTCOME[end.outcome])


def private_files() -> None:
    """Nothing that is written from now on is open to everybody; of groups the person's umask decides."""
    os.umask(os.umask(0o077) | 0o007)


def _has_store(config: ExperimentConfig) -> bool:
    """Whether there can be anything in its store; asking an SQLite store would make one."""
    from pipeline.tracking import URI_VARIABLE, tracking_root

    return bool(os.environ.get(URI_VARIABLE) or config.tracking.uri or (tracking_root(config) / "mlflow.db").exists())


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
    from pipeline.tracking import Store, tracking_root, tracking_uri

    root = tracking_root(config)
    if not _has_store(config):
        print(f"no experiments yet under {root}")
        return EXIT_HEALTHY
    store = Store(tracking_uri(config), root)
    table = Table(box=None, pad_edge=False)
    for column in ("experiment / attempt", "status", "verdict", "episodes", "score", "from", "run"):
        table.add_column(column, overflow="fold")
    for experiment, runs in store.experiments():
        for parent in (each for each in runs if each.data.tags["ladder.kind"] == "experiment"):
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
            for each in sorted(nested, key=lambda one: int(one.data.tags["ladder.attempt"])):
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
    text = "go on with an experiment that was cut off"
    command = commands.add_parser("resume", help=text, description=text)
    command.add_argument(
        "words",
        nargs="*",
        metavar="PARENT_RUN_ID | key.sub=value",
        help="its parent run (default: the newest unfinished one); tracking.… and budget.… can be given",
    )
    command = commands.add_parser("status", help="experiments and attempts, newest first")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    return parser


def _command(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    if parsed.command == "status":
        return status(validate(merge({}, parsed.overrides, "overrides"), "overrides"))
    if parsed.command == "resume":
        return resume(parsed.words)
    config = load_experiment(parsed.experiment, parsed.overrides)
    return run(config) if parsed.command == "run" else check(config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α must not end a night's run
    try:
        with interruptible():
            return _command(arguments)
    except BadInput as error:
        print(f"ladder: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (InfrastructureFailure, OSError) as error:
        print(f"ladder: {error}", file=sys.stderr)
        return leave(EXIT_INFRASTRUCTURE)
    except KeyboardInterrupt:  # before anything was started
        print("ladder: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
