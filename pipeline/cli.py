"""The command line: `ladder run | resume | tune | check | diagnose | compare | watch | status`."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

from fallbacks.ladder import Ladder
from pipeline.commands.preflight import preflight, too_short
from pipeline.config import ExperimentConfig
from pipeline.console import complain, open_standard_streams
from pipeline.errors import (
    EXIT_BAD_INPUT,
    EXIT_EXHAUSTED,
    EXIT_HEALTHY,
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    BadInput,
    InfrastructureFailure,
)
from pipeline.launchers.gpu import require_device
from pipeline.load import load_experiments, merge, validate
from pipeline.survival.signals import interruptible
from pipeline.tracking.patience import leave

if TYPE_CHECKING:
    from pipeline.launchers.base import Launcher
    from pipeline.survival.series import Series
    from pipeline.tracking.store import Run, Store

EXIT_OF_OUTCOME = {"healthy": EXIT_HEALTHY, "exhausted": EXIT_EXHAUSTED, "interrupted": EXIT_INTERRUPTED}


def run(configs: Sequence[ExperimentConfig]) -> int:
    """Runs experiments (seeds of one) down their ladders, one after another; the exit code is that of the worst.

    Each has its own budget, so that what becomes of a seed does not depend on those before it. Only a person ends all.
    """
    require_device(configs)
    # Imported here: MLflow takes seconds, and bad input should not.
    from pipeline.display import Display
    from pipeline.launchers.local import LocalLauncher
    from pipeline.survival.recovery import reconcile
    from pipeline.survival.series import Series
    from pipeline.tracking.store import Store, tracking_root, tracking_uri

    private_files()
    store, launcher = Store(tracking_uri(configs[0]), tracking_root(configs[0])), LocalLauncher()
    reconcile(store, launcher, Display().say)
    series = Series.of([config.training.seed for config in configs])
    return leave(_one_after_another(configs, series, store, launcher))


def _one_after_another(
    configs: Sequence[ExperimentConfig], series: Series, store: Store, launcher: Launcher, worst: int = EXIT_HEALTHY
) -> int:
    """The exit code of the worst; `worst`: that of those before."""
    from pipeline.display import Display
    from pipeline.orchestrator import Orchestrator

    for config in configs:
        orchestrator = Orchestrator(config, store, launcher, Display(), series=series)
        try:
            worst = max(worst, EXIT_OF_OUTCOME[orchestrator.run().outcome])
        except InfrastructureFailure as error:
            if config is configs[-1]:
                raise
            complain(f"seed {config.training.seed}: {error}")
            worst = max(worst, EXIT_INFRASTRUCTURE)
        if orchestrator.asked_to_stop:
            if rest := series.to_come(store):
                print(f"not begun: seed {', '.join(map(str, rest))}; `ladder resume` goes on with that too")
            break
    if len(parents := series.parents(store)) > 1:
        from pipeline.compare.command import compare as show

        show(store, [run.info.run_id for run in parents], None, _console())
    return worst


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
    from pipeline.survival.records import read_config
    from pipeline.survival.recovery import reconcile, take_up
    from pipeline.survival.series import Series, cut_between_seeds
    from pipeline.tracking.store import Store, has_store, tracking_root, tracking_uri

    if not has_store(here):
        raise BadInput(f"tracking.root: nothing to resume, there are no experiments under {tracking_root(here)}")
    private_files()
    store, launcher, display = Store(tracking_uri(here), tracking_root(here)), LocalLauncher(), Display()

    def adapted(config: ExperimentConfig) -> ExperimentConfig:
        found = {"root": here.tracking.root, "uri": here.tracking.uri}  # where it was found, which may have moved
        data = config.model_copy(update={"tracking": config.tracking.model_copy(update=found)}).model_dump(mode="json")
        later = validate(merge(data, overrides, "overrides"), "overrides")
        require_device([later], begun=True)
        return later

    def remaining_seeds(parent: Run, worst: int) -> int:
        """Goes on with the seeds that were to follow this experiment, if there are any."""
        series = Series.read(parent)
        if series is None:
            return worst
        data = adapted(read_config(store, parent)).model_dump(mode="json")
        configs = [validate(merge(data, [f"training.seed={seed}"], ""), "") for seed in series.to_come(store)]
        return _one_after_another(configs, series, store, launcher, worst)

    if not named and (parent := cut_between_seeds(store)) is not None:
        reconcile(store, launcher, display.say)
        return leave(remaining_seeds(parent, EXIT_HEALTHY))
    past = take_up(store, launcher, named[0] if named else None, adapted)
    if past.seconds > 3600 * (hours := past.config.budget.hours):
        past.lock.release()
        raise BadInput(f"budget.hours: {hours:g} are spent; give it more: ladder resume {past.parent} budget.hours=…")
    reconcile(store, launcher, display.say)
    orchestrator = Orchestrator(past.config, store, launcher, display)
    code = EXIT_OF_OUTCOME[orchestrator.run(past).outcome]
    own = None if orchestrator.asked_to_stop else store.run(past.parent)
    return leave(code if own is None else remaining_seeds(own, code))


def private_files() -> int:
    """Nothing that is written from now on is open to everybody; of groups the person's umask decides. Returns that."""
    usual = os.umask(0o077)
    os.umask(usual | 0o007)
    return usual


def _make_truthful(store: Store, console: Console) -> None:
    """Before somebody reads: no run is RUNNING behind an orchestrator that is gone, if the store can be written."""
    from pipeline.launchers.local import LocalLauncher
    from pipeline.survival.recovery import reconcile

    usual = private_files()
    with contextlib.suppress(InfrastructureFailure, OSError):
        reconcile(store, LocalLauncher(), partial(console.print, markup=False, soft_wrap=True))
    os.umask(usual)


def tune(path: str, overrides: Sequence[str], validate_on: int | None) -> int:
    """Tunes the coefficients that a study names, or validates the best of them on fresh seeds."""
    from pipeline.tuning.study import load_study

    plan = load_study(path, overrides)
    if validate_on is not None and validate_on < 2:
        raise BadInput(f"--validate: two fresh seeds at least, not {validate_on}")
    require_device([plan.config])
    from pipeline.tuning.display import StudyDisplay
    from pipeline.tuning.tune import Tuning

    private_files()
    tuning = Tuning(plan, StudyDisplay())
    return tuning.tune() if validate_on is None else tuning.validate(validate_on)


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
    console = _console()
    console.print(table)
    failed = sum(not item.true for item in items)
    console.print(f"{len(items) - failed} of {len(items)} items true")
    if rules := too_short(first):
        console.print(f"too short to tell that the score stands still, by the rules: {rules}", soft_wrap=True)
    return EXIT_BAD_INPUT if failed else EXIT_HEALTHY


def compare(words: Sequence[str], out: str | None) -> int:
    """Compares experiments: run ids, and overrides such as tracking.root=DIR, in any order."""
    from pipeline.compare.command import compare as show
    from pipeline.tracking.store import open_store

    config = validate(merge({}, [word for word in words if "=" in word], "overrides"), "overrides")
    parents = [word for word in words if "=" not in word]
    store, console = open_store(config), _console()
    _make_truthful(store, console)
    show(store, parents, None if out is None else Path(out), console)
    return EXIT_HEALTHY


def watch(run: str, overrides: Sequence[str], seed: int, pace: float) -> int:
    """A checkpoint plays a game in the terminal."""
    from pipeline.commands.watch import watch as play
    from pipeline.tracking.store import open_store

    return play(open_store(validate(merge({}, overrides, "overrides"), "overrides")), run, seed, pace)


def status(config: ExperimentConfig, *, follow: bool) -> int:
    """Prints the experiments of the store with their attempts, newest first."""
    from pipeline.commands.status import status as show
    from pipeline.tracking.store import Store, has_store, tracking_root, tracking_uri

    root = tracking_root(config)
    if not has_store(config):
        print(f"no experiments yet under {root}")
        return EXIT_HEALTHY
    store, console = Store(tracking_uri(config), root), _console()
    show(store, console, follow=follow, before=partial(_make_truthful, store, console))
    return EXIT_HEALTHY


def diagnose(target: str, overrides: Sequence[str], out: str | None) -> int:
    """Prints what each rule says of a run, of all attempts of an experiment, or of a CSV file."""
    from pipeline.commands.diagnose import cases_of_file, cases_of_run, report

    if target.endswith((".csv", ".csv.gz")):
        cases = cases_of_file(target, overrides)
    else:
        cases = cases_of_run(target, overrides)
    for case in cases:
        report(case, _console(), None if out is None else Path(out))
    return EXIT_HEALTHY


def _console() -> Console:
    """As wide as the terminal; in a pipe wide enough that nothing is cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _seconds(word: str) -> float:
    """Argument: a number of seconds."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(word)) <= 60:
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be seconds between 0 and 60")


def _seed(word: str) -> int:
    """Argument: a seed."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := int(word)) < 2**31:
            return value
    raise argparse.ArgumentTypeError(f"{word!r}: must be a whole number from 0 to 2147483647")


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
    command = commands.add_parser("diagnose", help="when each health rule would have fired on a run, and why")
    command.add_argument("target", help="the id of a run, or a CSV file with a column `step`")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as health.rules=seed")
    command.add_argument("--out", metavar="DIR", help="a folder for a picture of each rule that fires")
    text = "go on with an experiment that was cut off"
    command = commands.add_parser("resume", help=text, description=text)
    command.add_argument(
        "words",
        nargs="*",
        metavar="PARENT_RUN_ID | key.sub=value",
        help="its parent run (default: the newest unfinished one); tracking.… and budget.… can be given",
    )
    text = "tune the coefficients that a study names; again: go on with it"
    command = commands.add_parser("tune", help=text, description=text)
    command.add_argument("study", help="a YAML file, such as experiments/study.yaml")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="replace values of the file")
    text = "instead: rerun the best trial and the default on N fresh seeds, and say whether the gain is real"
    command.add_argument("--validate", type=int, metavar="N", help=text)
    text = "what happened in an experiment: its attempts side by side"
    command = commands.add_parser("compare", help=text, description=text)
    what = "parent runs (default: the newest experiment, with its siblings of other seeds), tracking.root=DIR"
    command.add_argument("words", nargs="*", metavar="PARENT_RUN_ID", help=what)
    command.add_argument("--out", metavar="DIR", help="also write DIR/compare.html, one file that needs no network")
    text = "a checkpoint plays a game in this terminal, the router's weights beside it"
    command = commands.add_parser("watch", help=text, description=text)
    command.add_argument("run", metavar="RUN_ID", help="an attempt, or an experiment: then its settled attempt")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    command.add_argument("--seed", type=_seed, default=1, help="of the game (default 1)")
    command.add_argument("--pace", type=_seconds, default=0.08, help="seconds a step (default 0.08)")
    command = commands.add_parser("status", help="experiments and attempts, newest first")
    command.add_argument("overrides", nargs="*", metavar="key.sub=value", help="such as tracking.root=DIR")
    command.add_argument("--follow", action="store_true", help="until no experiment is running any more")
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options may stand anywhere: argparse by itself takes no further words once an option has come between."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    (parsed.words if parsed.command in ("compare", "resume") else parsed.overrides).extend(rest)
    return parsed


def _command(arguments: Sequence[str] | None) -> int:
    parsed = _parse(arguments)
    match parsed.command:
        case "watch":
            return watch(parsed.run, parsed.overrides, parsed.seed, parsed.pace)
        case "compare":
            return compare(parsed.words, parsed.out)
        case "status":
            return status(validate(merge({}, parsed.overrides, "overrides"), "overrides"), follow=parsed.follow)
        case "diagnose":
            return diagnose(parsed.target, parsed.overrides, parsed.out)
        case "tune":
            return tune(parsed.study, parsed.overrides, parsed.validate)
        case "resume":
            return resume(parsed.words)
    configs = load_experiments(parsed.experiment, parsed.overrides)
    return run(configs) if parsed.command == "run" else check(configs[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show α must not end a night's run
    try:
        with interruptible():
            return _command(arguments)
    except BadInput as error:
        complain(str(error))
        return EXIT_BAD_INPUT
    except (InfrastructureFailure, OSError) as error:
        complain(str(error))
        return leave(EXIT_INFRASTRUCTURE)
    except KeyboardInterrupt:  # before anything was started
        complain("interrupted")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
